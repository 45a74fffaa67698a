"""The agent's certificate store with a control plane behind it: certificates come, renew and follow a rotation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ambient.identity import roots
from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid
from ambient.model.mesh import Identity

from .plane import Agent, with_agent

WEB, DB = Identity("cluster.local", "shop", "web"), Identity("cluster.local", "shop", "db")
AT_ONCE = timedelta(0)


class Held:
    """What the store handed out last, by identity."""

    def __init__(self, agent: Agent) -> None:
        self.news: asyncio.Queue[Svid] = asyncio.Queue()
        self.store = CertificateStore(agent.issuer, on_change=self.news.put_nowait, rng=agent.rng)

    async def next(self) -> Svid:
        return await asyncio.wait_for(self.news.get(), 5)

    def row(self, identity: Identity) -> dict[str, str | int]:
        return next(row for row in self.store.status() if row["identity"] == str(identity))


@contextlib.asynccontextmanager
async def holding(agent: Agent, *wanted: Identity) -> AsyncIterator[Held]:
    held = Held(agent)
    held.store.want(frozenset(wanted))
    task = asyncio.create_task(held.store.run(), name="store under test")
    try:
        yield held
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_pods_certificate_is_there_and_what_is_refused_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), holding(agent, WEB, DB) as held:
            own = await held.next()
            assert (own.identity, own.signed_by) == (WEB, plane.authority.signer.id)
            assert own.roots_pem == plane.authority.bundle_pem
            async with asyncio.timeout(30):
                while held.row(DB)["state"] != "failing":  # noqa: ASYNC110 - the store tells nobody of a failure
                    await asyncio.sleep(0.01)
            assert "no pod of that identity" in str(held.row(DB)["error"])

    asyncio.run(main())


def test_a_rotation_reaches_every_certificate_step_by_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with with_agent(tmp_path) as (plane, agent), holding(agent, WEB) as held:
            first = await held.next()
            now = datetime.now(UTC)

            added = plane.authority = roots.add_root(plane.authority, now)
            agent.trust.tell(added.bundle_pem)
            trusting = await held.next()
            assert (trusting.serial, trusting.roots_pem) == (first.serial, added.bundle_pem)

            switched = plane.authority = roots.switch_signer(added, now, settle=AT_ONCE)
            agent.trust.tell(switched.bundle_pem)
            assert (await held.next()).serial == first.serial  # renewed in its own time

            dropped = plane.authority = roots.drop_old(switched, now, longest=AT_ONCE)
            agent.trust.tell(dropped.bundle_pem)
            assert (await held.next()).roots_pem == dropped.bundle_pem
            renewed = await held.next()  # at once, for nobody trusts its root any more
            assert (renewed.signed_by, renewed.roots_pem) == (dropped.signer.id, dropped.bundle_pem)

    asyncio.run(main())
