"""Certificates from a control plane: an Issuer by `istio.v1.auth.IstioCertificateService`.

Does not judge what it gets: the certificate store does, whoever the issuer is.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta

from google.protobuf.message import DecodeError

from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.mesh import Identity
from ambient.xds.calls import Call, CallFailed
from ambient.xds.proto import certificates_pb2 as pb
from ambient.xds.trust import NoRoots, Trust

SERVICE = "istio.v1.auth.IstioCertificateService"
IMPERSONATED = "ImpersonatedIdentity"  # ztunnel's name for "on behalf of"


class ControlIssuer:
    """Implements Issuer."""

    def __init__(self, call: Call, trust: Trust) -> None:
        self._call, self._trust = call, trust

    async def issue(self, csr_pem: bytes, identity: Identity, lifetime: timedelta) -> Issued:
        """See Issuer. What is trusted is what the control plane told last: this answer may come from a replica that
        has not heard of it yet. One that tells nothing (istiod) is taken at its answer's word."""
        request = pb.IstioCertificateRequest(csr=csr_pem.decode(), validity_duration=int(lifetime.total_seconds()))
        request.metadata[IMPERSONATED] = str(identity)
        try:
            answer = await self._call(f"/{SERVICE}/CreateCertificate", request.SerializeToString())
            response = pb.IstioCertificateResponse.FromString(answer)
        except (CallFailed, DecodeError) as error:
            raise IssuingFailed(f"no certificate for {identity}: {error}") from error
        match response.cert_chain:
            case [_, *_, roots]:
                chain = "".join(response.cert_chain[:-1])
                return Issued(chain.encode(), self._trust.told or roots.encode())
        raise IssuingFailed(
            f"no certificate for {identity}: the control plane answered with {len(response.cert_chain)} parts; a "
            "certificate and roots, at least, were expected: is this a CA?"
        )

    async def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """See Issuer."""
        try:
            async with contextlib.aclosing(self._trust.watch()) as bundles:
                async for pem in bundles:
                    yield pem
        except NoRoots as error:
            raise IssuingFailed(str(error)) from error
