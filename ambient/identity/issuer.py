"""The Issuer every certificate comes from: the interface between the certificate store and whatever signs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from ambient.model.mesh import Identity


class IssuingFailed(Exception):
    """No certificate, or no roots, this time. Worth another try; the text says what was tried and what to look at."""


@dataclass(frozen=True, slots=True)
class Issued:
    chain_pem: bytes  # leaf first, no root
    roots_pem: bytes  # all that is trusted at this moment


class Issuer(Protocol):
    async def issue(self, csr_pem: bytes, identity: Identity, lifetime: timedelta) -> Issued:
        """Sign the request for `identity`. Raises IssuingFailed, and nothing else that may pass by itself."""

    def watch_roots(self) -> AsyncGenerator[bytes, None]:
        """The trusted roots (well-formed PEM) now, and again after every change. Raises IssuingFailed."""
