"""A server's TLS whose certificate is renewed while it serves."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from ambient.identity.signing import ServerCertificate


def renewed(current: Callable[[], ServerCertificate]) -> grpc.ServerCredentials:
    """Credentials that ask `current` at each handshake; it is called from threads of gRPC's."""

    def fetch() -> grpc.ServerCertificateConfiguration:
        own = current()
        return grpc.ssl_server_certificate_configuration([(own.key_pem, own.chain_pem)])

    return grpc.dynamic_ssl_server_credentials(fetch(), fetch, require_client_authentication=False)
