"""The CA's roots and keys in a Secret, shared by all replicas. What a rotation's steps are is not said here.

The Secret is only ever created, which one of many does, or replaced as it was read, which one of many does. So two
replicas never have two CAs, and no step of a rotation is lost or half done. A Secret that is gone is not founded again
while anybody may trust what was in it: the published bundle is the memory of that.
"""

from __future__ import annotations

import base64
import binascii
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime

from ambient.control import api
from ambient.control.api import Api, ApiError, Json
from ambient.control.follow import follow
from ambient.identity import ca_state, roots, spiffe
from ambient.identity.ca_state import CaUnusable
from ambient.identity.roots import Authority

SECRET = "ambient-ca"
STATE = "ca.json"
BUNDLE = "ambient-root"  # a ConfigMap: agents mount it
ROOTS = "roots.pem"
ATTEMPTS = 5  # at changing what others change as well

_log = logging.getLogger(__name__)


class ClusterAuthority:
    def __init__(
        self,
        kubernetes: Api,
        namespace: str,
        trust_domain: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """Raises ValueError for a bad trust domain."""
        self._api = kubernetes
        self._namespace = namespace
        self._trust_domain = spiffe.trust_domain(trust_domain)
        self._now = now
        self._rng = rng

    async def load(self) -> Authority:
        """Raises CaUnusable or ApiError."""
        return self._decode(await api.find(self._api, api.SECRET, self._namespace, SECRET))

    async def found(self) -> None:
        """See to it that there is a CA; harmless if two do it at once. Raises CaUnusable or ApiError."""
        if await api.find(self._api, api.SECRET, self._namespace, SECRET) is not None:
            return
        bundle = await api.find(self._api, api.CONFIG_MAP, self._namespace, BUNDLE)
        if bundle and (bundle.get("data") or {}).get(ROOTS):
            raise CaUnusable(
                f"Secret {self._namespace}/{SECRET} is gone, and workloads trust its CA: restore it from a backup, or "
                f"delete ConfigMap {self._namespace}/{BUNDLE} to found a new CA that nobody trusts yet"
            )
        authority = roots.found(self._trust_domain, self._now())
        metadata = {"namespace": self._namespace, "name": SECRET}
        try:
            await self._api.create(api.SECRET, {"metadata": metadata, "type": "Opaque", "data": _data(authority)})
        except ApiError as error:
            if error.status != api.CONFLICT:  # somebody was quicker, and theirs is the CA
                raise
        else:
            _log.info("founded the CA of %s: root %s", self._trust_domain, authority.signer.id)

    async def step(self, change: Callable[[Authority], Authority]) -> Authority:
        """Change what there is at that moment. Raises CaUnusable, ApiError, and what `change` raises."""
        for _ in range(ATTEMPTS):
            secret = await api.find(self._api, api.SECRET, self._namespace, SECRET)
            authority = change(self._decode(secret))
            try:
                await self._api.replace(api.SECRET, {**(secret or {}), "data": _data(authority)})
            except ApiError as error:
                if error.status == api.CONFLICT:
                    continue
                raise
            return authority
        raise ApiError(f"Secret {self._namespace}/{SECRET} was changed by others {ATTEMPTS} times", status=api.CONFLICT)

    async def watch(self) -> AsyncGenerator[Authority | CaUnusable, None]:
        """The CA now, and after every change; why there is none instead. Never ends."""
        secrets = follow(self._api, api.SECRET, self._namespace, SECRET, rng=self._rng)
        async with aclosing(secrets):
            async for secret in secrets:
                try:
                    yield self._decode(secret)
                except CaUnusable as error:
                    yield error

    def _decode(self, secret: Json | None) -> Authority:
        if secret is None:
            raise CaUnusable(f"there is no Secret {self._namespace}/{SECRET} with a CA: the control plane founds it")
        try:
            authority = ca_state.decode(base64.b64decode((secret.get("data") or {})[STATE], validate=True))
        except (ValueError, KeyError, binascii.Error) as error:
            raise CaUnusable(
                f"{STATE} in Secret {self._namespace}/{SECRET} is not a CA's state ({error}): restore it from a backup"
            ) from error
        if authority.trust_domain != self._trust_domain:
            raise CaUnusable(
                f"the CA in Secret {self._namespace}/{SECRET} is of the trust domain {authority.trust_domain!r}, not "
                f"{self._trust_domain!r}"
            )
        return authority


def _data(authority: Authority) -> dict[str, str]:
    return {STATE: base64.b64encode(ca_state.encode(authority)).decode()}
