"""`istio.v1.auth.IstioCertificateService`: certificates for the pods of the caller's node, and for no others.

Knows neither how a caller proves who it is nor what signs: both are given. Every refusal is logged and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import grpc
from google.protobuf import struct_pb2

from ambient.identity import csr, profile, spiffe
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.world import World
from ambient.xds import caller as callers
from ambient.xds import grants
from ambient.xds.ca_client import IMPERSONATED, SERVICE
from ambient.xds.proto import certificates_pb2 as pb

_log = logging.getLogger(__name__)


class CertificateService:
    def __init__(
        self,
        *,
        authenticate: callers.Authenticate,
        world: Callable[[], World],
        sign: Callable[[SigningRequest, timedelta], Issued],
        longest: timedelta = profile.DEFAULT_LIFETIME,
    ) -> None:
        """`sign` raises IssuingFailed. It is called on the event loop: 0.2 ms, where a thread's hand-over costs 0.1.

        `longest`: who asks for more gets this much.
        """
        self._authenticate = authenticate
        self._world = world
        self._sign = sign
        self._longest = min(longest, profile.MAX_LIFETIME)
        self.counts: Counter[str] = Counter()  # by what became of a request: "issued", or why it was not

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a server."""
        method = grpc.unary_unary_rpc_method_handler(
            self._create,
            request_deserializer=pb.IstioCertificateRequest.FromString,
            response_serializer=pb.IstioCertificateResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"CreateCertificate": method})

    async def _create(
        self, request: pb.IstioCertificateRequest, context: callers.Context
    ) -> pb.IstioCertificateResponse:
        caller = await callers.admit(context, self._authenticate)
        try:
            asked = _asked(request)
            lifetime = self._lifetime(request.validity_duration)
        except ValueError as error:
            self._refuse("bad_request", f"{caller}: {error}")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        verdict = grants.judge(self._world(), caller, asked.identity)
        if isinstance(verdict, grants.Refused):
            self._refuse(verdict.reason, verdict.text)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, verdict.text)
        try:
            issued = self._sign(asked, lifetime)
        except IssuingFailed as error:
            self._refuse("cannot_sign", f"{caller}: {error}")
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        self.counts["issued"] += 1
        _log.debug("%s for %s, because of pod %s", asked.identity, caller, verdict.pod)
        return pb.IstioCertificateResponse(cert_chain=[*_each(issued.chain_pem), issued.roots_pem.decode()])

    def _lifetime(self, seconds: int) -> timedelta:
        if seconds == 0:
            return self._longest
        if seconds < profile.MIN_LIFETIME.total_seconds():
            raise ValueError(f"a validity of {seconds} s was asked for; the CA gives {profile.MIN_LIFETIME} and more")
        return min(timedelta(seconds=min(seconds, 1 << 31)), self._longest)

    def _refuse(self, reason: str, text: str) -> None:
        self.counts[reason] += 1
        _log.warning("no certificate (%s): %s", reason, text)


def _asked(request: pb.IstioCertificateRequest) -> SigningRequest:
    """The request in the request. Raises ValueError."""
    asked = csr.read(request.csr.encode())
    fields = request.metadata.fields
    if IMPERSONATED not in fields:
        return asked
    value: struct_pb2.Value = fields[IMPERSONATED]
    impersonated = spiffe.parse(value.string_value)
    if impersonated != asked.identity:
        raise ValueError(f"{IMPERSONATED} is {impersonated}, and the request for a signature names {asked.identity}")
    return asked


_END = b"-----END CERTIFICATE-----\n"


def _each(chain_pem: bytes) -> list[str]:
    """The certificates of a chain one by one, as the wire has them."""
    return [(part + _END).decode() for part in chain_pem.split(_END) if part.strip()]
