"""`istio.v1.auth.IstioCertificateService`: certificates for the pods of the caller's node, and for no others.

Knows neither how a caller proves who it is nor what signs: both are given. Every refusal is logged and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from google.protobuf import message, struct_pb2

from ambient.identity import csr, profile, spiffe
from ambient.identity.csr import SigningRequest
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.world import World
from ambient.xds import caller as callers
from ambient.xds import grants
from ambient.xds.ca_client import IMPERSONATED, SERVICE
from ambient.xds.call import Status
from ambient.xds.proto import certificates_pb2 as pb
from ambient.xds.served import Aborted, ServerCall
from ambient.xds.serving import Handlers, unary

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

    def handlers(self) -> Handlers:
        """For a server."""
        return {f"/{SERVICE}/CreateCertificate": unary(self._admit, self._create)}

    async def _admit(self, call: ServerCall) -> callers.Caller:
        return await callers.admit(call.metadata, self._authenticate)

    async def _create(self, data: bytes, caller: callers.Caller) -> bytes:
        try:
            request = pb.IstioCertificateRequest.FromString(data)
        except message.DecodeError as error:
            self._refuse("bad_request", f"{caller}: {error}")
            raise Aborted(Status.INVALID_ARGUMENT, f"this is no IstioCertificateRequest: {error}") from error
        try:
            asked = _asked(request)
            lifetime = self._lifetime(request.validity_duration)
        except ValueError as error:
            self._refuse("bad_request", f"{caller}: {error}")
            raise Aborted(Status.INVALID_ARGUMENT, str(error)) from error
        verdict = grants.judge(self._world(), caller, asked.identity)
        if isinstance(verdict, grants.Refused):
            self._refuse(verdict.reason, verdict.text)
            raise Aborted(Status.PERMISSION_DENIED, verdict.text)
        try:
            issued = self._sign(asked, lifetime)
        except IssuingFailed as error:
            self._refuse("cannot_sign", f"{caller}: {error}")
            raise Aborted(Status.UNAVAILABLE, str(error)) from error
        self.counts["issued"] += 1
        _log.debug("%s for %s, because of pod %s", asked.identity, caller, verdict.pod)
        chain = [*_each(issued.chain_pem), issued.roots_pem.decode()]
        return pb.IstioCertificateResponse(cert_chain=chain).SerializeToString()

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
