"""The certificate store and the roots: they reach every certificate, and before anything they signed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ambient.identity import roots

from . import virtual
from .agents import DB, WEB, running
from .issuers import MoodyIssuer


def test_new_roots_reach_every_certificate_without_a_new_one() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB, DB) as agent:
            before = list(agent.changes)
            await issuer.become(roots.add_root(issuer.authority, virtual.now()))
            await asyncio.sleep(0.1)
            after = agent.changes[2:]
            assert [each.roots_pem.count(b"BEGIN") for each in after] == [2, 2]
            assert {each.chain_pem for each in after} == {each.chain_pem for each in before}
            assert agent.store.get(WEB) in after
            assert len(str(agent.row()["trusts"]).split(",")) == 2
            assert len(issuer.asked) == 2

    virtual.run(main())


def test_new_roots_that_come_with_a_certificate_reach_the_others_first() -> None:
    """Whatever the watch missed: nobody here shows a certificate of a root his neighbours here do not trust."""

    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            added = roots.add_root(issuer.authority, virtual.now())
            await issuer.become(roots.switch_signer(added, virtual.now(), settle=timedelta(0)), quietly=True)
            agent.store.want(frozenset([WEB, DB]))
            await asyncio.sleep(0.1)
            assert [each.identity for each in agent.changes] == [WEB, WEB, DB]
            assert agent.changes[1].roots_pem == agent.changes[2].roots_pem == issuer.authority.bundle_pem

    virtual.run(main())


def test_a_certificate_of_a_root_that_was_dropped_is_replaced_at_once() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            await issuer.become(roots.found("cluster.local", virtual.EPOCH))
            await asyncio.sleep(0.1)
            own = agent.store.get(WEB)
            assert own is not None
            assert own.signed_by == issuer.authority.signer.id
            assert len(issuer.asked) == 2

    virtual.run(main())


def test_an_issuer_without_roots_is_named_in_every_row_and_changes_no_certificate() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            await issuer.fail("the bundle cannot be read")
            await asyncio.sleep(120)
            assert agent.store.get(WEB) == agent.changes[0]
            assert (agent.row()["state"], agent.row()["error"]) == ("valid", "the bundle cannot be read")
            issuer.broken = ""
            await asyncio.sleep(70)
            assert agent.row()["error"] == ""

    virtual.run(main())
