"""A server's TLS whose certificate is renewed while it serves: new connections see the newest, open ones go on."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from ambient.identity.signing import ServerCertificate


class Renewed:
    def __init__(self, current: Callable[[], ServerCertificate]) -> None:
        """current: cheap, and the same object as long as the certificate is."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["h2"])
        self._current = current
        self._shown: ServerCertificate | None = None
        self.refresh()

    def refresh(self) -> None:
        """To be called before each handshake."""
        own = self._current()
        if own is not self._shown:
            _load(self.context, own)
            self._shown = own


def _load(context: ssl.SSLContext, own: ServerCertificate) -> None:
    """OpenSSL wants a file; this one is memory of ours, and no key is on a disk."""
    with os.fdopen(os.memfd_create("ambient-serving"), "wb") as file:
        file.write(own.key_pem + own.chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
