"""A certificate store at work in virtual time, and what it told its owner."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta

from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid
from ambient.model.mesh import Identity

from . import make, virtual
from .issuers import MoodyIssuer

HOURS = 3600.0
WEB, DB = make.an_identity("web"), make.an_identity("db")


class Agent:
    """A store at work, and what it told its owner."""

    def __init__(self, issuer: MoodyIssuer, **settings: timedelta) -> None:
        self.changes: list[Svid] = []
        self.expired: list[Identity] = []
        self.store = CertificateStore(
            issuer,
            on_change=self.changes.append,
            on_expiry=self.expired.append,
            clock=virtual.now,
            rng=random.Random(7),
            **settings,
        )

    def row(self, identity: Identity = WEB) -> dict[str, str | int]:
        return next(row for row in self.store.status() if row["identity"] == str(identity))


@contextlib.asynccontextmanager
async def running(issuer: MoodyIssuer, *wanted: Identity, **settings: timedelta) -> AsyncIterator[Agent]:
    agent = Agent(issuer, **settings)
    agent.store.want(frozenset(wanted))
    task = asyncio.create_task(agent.store.run(), name="store under test")
    try:
        await asyncio.sleep(0.1)  # virtual: whatever can be done at once is done
        yield agent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
