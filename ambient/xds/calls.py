"""Short calls to a control plane, as those see them who make them: bytes there, bytes back, or a reason why not."""

from __future__ import annotations

from typing import Protocol


class CallFailed(Exception):
    """The control plane did not do what was asked. The text says what was tried, what it said and what to look at."""


class Call(Protocol):
    async def __call__(self, method: str, request: bytes, /) -> bytes:
        """method: "/package.Service/Method". It may be made twice, and must do no harm then. Raises CallFailed."""
