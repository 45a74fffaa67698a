"""Real handshakes: two OpenSSL ends in memory, each with a certificate and roots, as the engine's tunnels have."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from ambient.identity import svid
from ambient.identity.svid import PeerCertificate, Svid


@dataclass(frozen=True)
class Party:
    """What one end of a tunnel needs."""

    chain_pem: bytes
    key_pem: bytes
    roots_pem: bytes

    @classmethod
    def of(cls, own: Svid) -> Party:
        return cls(own.chain_pem, own.key_pem, own.roots_pem)


def handshake(client: Party, server: Party) -> tuple[bytes, bytes]:
    """TLS 1.3, both sides verified by OpenSSL. Returns what each saw of the other (DER): client's view, server's view.

    Raises ssl.SSLError with the verdict of whichever end refused.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        _context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(to_client, to_server),
        _context(ssl.PROTOCOL_TLS_SERVER, server).wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # flights: hello, server's, client's certificate, tickets
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    client_view, server_view = (end.getpeercert(binary_form=True) for end in ends)
    assert client_view is not None
    assert server_view is not None
    return client_view, server_view


def meet(client: Svid, server: Svid) -> tuple[PeerCertificate, PeerCertificate]:
    """All of what the mesh asks of both ends: OpenSSL's verdict on the chain, ours on the leaf."""
    client_view, server_view = handshake(Party.of(client), Party.of(server))
    return (
        svid.read_peer(client_view, client.identity.trust_domain),
        svid.read_peer(server_view, server.identity.trust_domain),
    )


def _context(protocol: ssl._SSLMethod, party: Party) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a SPIFFE certificate names no host
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=party.roots_pem.decode())
    with _in_memory(party.chain_pem + party.key_pem) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path for an API that takes nothing else, to bytes that are on no file system."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
