"""Replacing the root without an outage: at every step, agents that have and have not followed it still meet.

And the counter-proofs: each thing a step waits for is an outage if it is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ambient.identity import roots
from ambient.identity.ca import EmbeddedCA
from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid

from . import make, tls

NOW = make.utc_now()
AT_ONCE = timedelta(0)
BEFORE = roots.found("cluster.local", NOW)
ADDED = roots.add_root(BEFORE, NOW)
SWITCHED = roots.switch_signer(ADDED, NOW, settle=AT_ONCE)
DROPPED = roots.drop_old(SWITCHED, NOW, longest=AT_ONCE)


def an_agent(signed: roots.Authority, trusts: roots.Authority) -> Svid:
    """An agent that got its certificate at one step of the rotation and its roots at another."""
    return make.an_svid(authority=signed, trusts=trusts.bundle_pem)


AGENTS = {
    "has heard of nothing": an_agent(BEFORE, BEFORE),
    "trusts the new root": an_agent(BEFORE, ADDED),
    "has a certificate of the new root": an_agent(SWITCHED, SWITCHED),
    "has dropped the old root": an_agent(DROPPED, DROPPED),
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("has heard of nothing", "trusts the new root", id="while step 1 spreads"),
        pytest.param("trusts the new root", "has a certificate of the new root", id="while step 2 spreads"),
        pytest.param("has a certificate of the new root", "has dropped the old root", id="while step 3 spreads"),
    ],
)
def test_agents_one_step_apart_meet_both_ways(one: str, other: str) -> None:
    for client, server in ((one, one), (one, other), (other, one), (other, other)):
        assert tls.meet(AGENTS[client], AGENTS[server])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("has heard of nothing", "has a certificate of the new root", id="step 2 without settling"),
        pytest.param("trusts the new root", "has dropped the old root", id="step 3 before all are renewed"),
    ],
)
def test_agents_two_steps_apart_would_not_meet_so_the_waiting_is_needed(one: str, other: str) -> None:
    for client, server in ((one, other), (other, one)):
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            tls.meet(AGENTS[client], AGENTS[server])


class Node:
    """A node's store over the shared CA directory."""

    def __init__(self, folder: Path, account: str) -> None:
        self.identity = make.an_identity(account)
        self.changed = asyncio.Event()
        self.ca = EmbeddedCA.open(folder, "cluster.local")
        self.store = CertificateStore(self.ca, on_change=lambda _: self.changed.set())
        self.store.want(frozenset([self.identity]))

    @property
    def svid(self) -> Svid:
        own = self.store.get(self.identity)
        assert own is not None, f"{self.identity} was left without a certificate"
        return own

    async def until_roots(self, count: int) -> None:
        """Wait until this node trusts so many roots."""
        async with asyncio.timeout(8):  # the kernel tells at once; 10 s would be the look without being told
            while (own := self.store.get(self.identity)) is None or own.roots_pem.count(b"BEGIN CERT") != count:
                self.changed.clear()
                await self.changed.wait()

    def renew(self) -> None:
        """What half a lifetime brings about: forget and ask again."""
        self.store.want(frozenset())
        self.store.want(frozenset([self.identity]))


@contextlib.asynccontextmanager
async def nodes(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    pair = Node(folder, "web"), Node(folder, "db")
    tasks = [asyncio.create_task(each.store.run(), name="store under test") for each in pair]
    try:
        for each in pair:
            await each.until_roots(1)
        yield pair
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def meet_both_ways(one: Node, other: Node) -> None:
    assert tls.meet(one.svid, other.svid)[0].identity == other.identity
    assert tls.meet(other.svid, one.svid)[0].identity == one.identity


def test_two_running_nodes_are_carried_through_a_whole_rotation(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path / "ca") as (web, db):
            meet_both_ways(web, db)
            first_root = web.svid.signed_by

            new_root = EmbeddedCA.open(tmp_path / "ca", "cluster.local").add_root()
            await asyncio.gather(web.until_roots(2), db.until_roots(2))
            assert web.svid.signed_by == db.svid.signed_by == first_root  # no new certificate was needed
            meet_both_ways(web, db)

            web.ca.switch_signer(settle=AT_ONCE)
            meet_both_ways(web, db)
            web.renew()
            await web.until_roots(2)
            assert (web.svid.signed_by, db.svid.signed_by) == (new_root, first_root)  # one of each
            meet_both_ways(web, db)
            db.renew()
            await db.until_roots(2)
            assert db.svid.signed_by == new_root
            meet_both_ways(web, db)

            db.ca.drop_old_root(longest=AT_ONCE)
            await asyncio.gather(web.until_roots(1), db.until_roots(1))
            meet_both_ways(web, db)
            assert web.store.status()[0]["trusts"] == new_root

    asyncio.run(main())


def test_nodes_whose_root_is_dropped_under_them_get_new_certificates_by_themselves(tmp_path: Path) -> None:
    """The emergency: nobody was renewed, the old root is gone. The outage ends when the stores have noticed."""

    async def main() -> None:
        async with nodes(tmp_path / "ca") as (web, db):
            new_root = web.ca.add_root()
            web.ca.switch_signer(settle=AT_ONCE)
            web.ca.drop_old_root(longest=AT_ONCE)
            async with asyncio.timeout(8):
                for each in (web, db):
                    while each.svid.signed_by != new_root:
                        each.changed.clear()
                        await each.changed.wait()
            meet_both_ways(web, db)

    asyncio.run(main())
