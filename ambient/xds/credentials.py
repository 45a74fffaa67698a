"""A server's TLS whose certificate is renewed while it serves.

gRPC asks before each handshake, from many threads, whether there is another certificate. It takes one over without a
lock: a handshake that begins in that moment uses what is being freed, and the process dies. So it is told of another
certificate only when there is one, and nobody else's handshake begins shortly before or after.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from ambient.identity.signing import ServerCertificate

QUIET_S = (
    0.05  # from an answer to gRPC until it has acted on it: microseconds, unless its thread has to wait for a core
)


def renewed(current: Callable[[], ServerCertificate]) -> grpc.ServerCredentials:
    """Credentials with the certificate that `current` gives; it is called from threads of gRPC's."""
    renewal = _Renewal(current)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(renewal.shown),
        renewal.fetch,  # type: ignore[arg-type]  # its documentation allows None
        require_client_authentication=False,
    )


class _Renewal:
    def __init__(self, current: Callable[[], ServerCertificate]) -> None:
        self.shown = current()
        self._current = current
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Another certificate, or None for the same. Renewals are rare, so that handshakes can wait for one."""
        with self._lock:
            time.sleep(max(self._quiet_until - time.monotonic(), 0.0))
            own = self._current()
            if own is self.shown:
                return None
            time.sleep(QUIET_S)
            self.shown = own
            self._quiet_until = time.monotonic() + QUIET_S
            return _configuration(own)


def _configuration(own: ServerCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key_pem, own.chain_pem)])
