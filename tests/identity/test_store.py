"""The certificate store over days of virtual time: issue, renew, fail, recover, expire, stop."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from ambient.identity import store, svid
from ambient.identity.store import CertificateStore
from ambient.identity.svid import Svid
from ambient.model.mesh import Identity

from . import make, virtual
from .agents import DB, HOURS, WEB, Agent, running
from .issuers import MoodyIssuer


def test_a_wanted_identity_has_a_certificate_at_once() -> None:
    async def main() -> None:
        async with running(MoodyIssuer(), WEB) as agent:
            own = agent.store.get(WEB)
            assert own is not None
            assert agent.changes == [own]
            assert own.not_after - virtual.EPOCH <= timedelta(hours=24)

    virtual.run(main())


def test_an_identity_nobody_wants_has_none() -> None:
    async def main() -> None:
        async with running(MoodyIssuer(), WEB) as agent:
            assert agent.store.get(DB) is None

    virtual.run(main())


def test_a_certificate_is_renewed_near_half_of_its_life_with_a_new_key() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            await asyncio.sleep(10.7 * HOURS)
            assert len(issuer.asked) == 1
            await asyncio.sleep(2.6 * HOURS)
            assert len(issuer.asked) == 2
            first, second = agent.changes
            assert agent.store.get(WEB) == second
            assert first.key_pem != second.key_pem

    virtual.run(main())


def test_over_ten_days_there_is_a_valid_certificate_at_every_moment() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            for _ in range(10 * 24):
                await asyncio.sleep(HOURS)
                own = agent.store.get(WEB)
                assert own is not None
                assert own.not_after - virtual.now() > timedelta(hours=10)
        assert 18 <= len(issuer.asked) <= 23
        assert agent.expired == []

    virtual.run(main())


def test_the_old_certificate_is_kept_while_its_renewal_fails_and_dropped_when_it_ends() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            await issuer.fail("the disk is gone")
            await asyncio.sleep(23.9 * HOURS)
            assert agent.store.get(WEB) == agent.changes[0]
            assert agent.row()["state"] == "renewal failing"
            assert agent.row()["error"] == "the disk is gone"
            await asyncio.sleep(0.2 * HOURS)
            assert agent.store.get(WEB) is None
            assert agent.expired == [WEB]
            assert agent.row()["state"] == "failing"

    virtual.run(main())


def test_no_certificate_is_handed_out_at_or_past_its_last_moment() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            await issuer.fail("x")
            end = (agent.changes[0].not_after - virtual.now()).total_seconds()
            await asyncio.sleep(end - 0.01)
            assert agent.store.get(WEB) is not None
            await asyncio.sleep(0.01)
            assert virtual.now() >= agent.changes[0].not_after - timedelta(milliseconds=1)
            await asyncio.sleep(0.001)
            assert agent.store.get(WEB) is None

    virtual.run(main())


def test_attempts_back_off_to_one_a_minute() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        issuer.broken = "not today"
        async with running(issuer, WEB):
            await asyncio.sleep(600)
            moments = [moment for moment, _ in issuer.asked]
            pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
            assert all(0.89 <= pause <= 66.1 for pause in pauses)
            assert pauses[0] < 1.2
            assert min(pauses[-3:]) >= 53
            assert len(issuer.asked) < 20

    virtual.run(main())


def test_when_the_issuer_is_back_nobody_waits_the_back_off_out() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        issuer.broken = "not today"
        async with running(issuer, WEB, DB) as agent:
            await asyncio.sleep(300)
            assert agent.changes == []
            issuer.broken = ""
            await asyncio.sleep(67)
            assert {each.identity for each in agent.changes} == {WEB, DB}
            assert (agent.row()["failures"], agent.row()["error"]) == (0, "")

    virtual.run(main())


def test_a_silent_issuer_is_given_up_on_and_asked_again() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        issuer.silent = True
        async with running(issuer, WEB) as agent:
            await asyncio.sleep(store.ISSUE_TIMEOUT_S + 0.5)
            assert "did not answer" in str(agent.row()["error"])
            issuer.silent = False
            await asyncio.sleep(2)
            assert agent.store.get(WEB) is not None

    virtual.run(main())


def test_a_certificate_that_is_not_what_was_asked_for_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer signs for somebody else; the store must not take it, nor end."""

    async def main() -> None:
        issuer = MoodyIssuer()
        honest = issuer.issue
        monkeypatch.setattr(issuer, "issue", lambda csr, _, lifetime: honest(csr, DB, lifetime))
        async with running(issuer, WEB) as agent:
            assert agent.store.get(WEB) is None
            assert "got a certificate of" in str(agent.row()["error"])

    virtual.run(main())


def test_an_identity_that_cannot_be_one_fails_alone() -> None:
    async def main() -> None:
        bad = Identity("cluster.local", "a/b", "web")
        async with running(MoodyIssuer(), WEB, bad) as agent:
            assert agent.store.get(WEB) is not None
            assert "cannot stand in a SPIFFE ID" in str(agent.row(bad)["error"])

    virtual.run(main())


def test_at_most_eight_requests_are_under_way() -> None:
    async def main() -> None:
        issuer = MoodyIssuer(takes=1)
        many = [make.an_identity(f"w{number:02}") for number in range(40)]
        async with running(issuer, *many) as agent:
            await asyncio.sleep(5)
            assert len(agent.changes) == 40
            assert issuer.most_under_way == store.CONCURRENCY

    virtual.run(main())


def test_who_was_wanted_first_is_served_first_and_who_is_waited_for_before_all() -> None:
    async def main() -> None:
        issuer = MoodyIssuer(takes=1)
        agent = Agent(issuer)
        first = [make.an_identity(f"z{number:02}") for number in range(16)]
        later = [make.an_identity(f"a{number:02}") for number in range(16)]
        agent.store.want(frozenset(first))
        agent.store.want(frozenset(first + later))
        assert agent.store.get(later[-1]) is None  # a connection needs it
        task = asyncio.create_task(agent.store.run(), name="store under test")
        await asyncio.sleep(10)
        order = [identity for _, identity in issuer.asked]
        assert order == [later[-1], *first, *later[:-1]]
        task.cancel()
        await asyncio.wait([task])

    virtual.run(main())


def test_renewals_wait_for_those_that_have_nothing_yet() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        old = [make.an_identity(f"a{number:02}") for number in range(20)]
        async with running(issuer, *old) as agent:
            await issuer.fail("x")
            await asyncio.sleep(14 * HOURS)
            issuer.broken, issuer.takes = "", 1
            issuer.asked.clear()
            agent.store.want(frozenset([*old, WEB]))
            await asyncio.sleep(0.1)
            assert issuer.asked[0][1] == WEB

    virtual.run(main())


def test_what_is_no_longer_wanted_is_forgotten_and_its_request_cancelled() -> None:
    async def main() -> None:
        issuer = MoodyIssuer(takes=10)
        async with running(issuer, WEB, DB) as agent:
            assert issuer.under_way == 2
            agent.store.want(frozenset([DB]))
            await asyncio.sleep(0.1)
            assert issuer.under_way == 1
            await asyncio.sleep(20)
            assert [each.identity for each in agent.changes] == [DB]
            assert [row["identity"] for row in agent.store.status()] == [str(DB)]
            agent.store.want(frozenset([WEB]))
            await asyncio.sleep(20)
            assert agent.store.get(WEB) is not None
            assert agent.store.get(DB) is None

    virtual.run(main())


def test_wanting_the_same_again_changes_nothing() -> None:
    async def main() -> None:
        issuer = MoodyIssuer()
        async with running(issuer, WEB) as agent:
            for _ in range(5):
                agent.store.want(frozenset([WEB]))
                await asyncio.sleep(1)
            assert len(issuer.asked) == len(agent.changes) == 1

    virtual.run(main())


def test_a_wall_clock_set_forward_past_the_expiry_is_noticed_without_a_timer() -> None:
    async def main() -> None:
        issuer, leap = MoodyIssuer(), [timedelta(0)]
        expired: list[Identity] = []
        own = CertificateStore(
            issuer, on_change=lambda _: None, on_expiry=expired.append, clock=lambda: virtual.now() + leap[0]
        )
        own.want(frozenset([WEB]))
        task = asyncio.create_task(own.run(), name="store under test")
        await asyncio.sleep(1)
        issuer.broken = "x"
        leap[0] = timedelta(days=2)
        assert own.get(WEB) is None
        await asyncio.sleep(store.MAX_NAP_S + 1)
        assert expired == [WEB]
        task.cancel()
        await asyncio.wait([task])

    virtual.run(main())


def test_a_short_life_is_renewed_in_time_too() -> None:
    async def main() -> None:
        issuer = MoodyIssuer(takes=0.1)
        async with running(issuer, WEB, lifetime=timedelta(seconds=5)) as agent:
            await asyncio.sleep(1)
            for _ in range(60):
                await asyncio.sleep(1)
                assert agent.store.get(WEB) is not None
            assert 18 <= len(issuer.asked) <= 30

    virtual.run(main())


def test_cancelling_leaves_no_task_and_the_store_can_run_again() -> None:
    async def main() -> None:
        issuer = MoodyIssuer(takes=10)
        agent = Agent(issuer)
        agent.store.want(frozenset([WEB, DB]))
        for _ in range(2):
            task = asyncio.create_task(agent.store.run(), name="store under test")
            await asyncio.sleep(1)
            assert issuer.under_way == 2
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert issuer.under_way == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert agent.changes == []

    virtual.run(main())


def test_an_error_of_ours_ends_the_run_instead_of_hiding() -> None:
    async def main() -> None:
        def on_change(_: Svid) -> None:
            raise RuntimeError("a bug")

        own = CertificateStore(MoodyIssuer(), on_change=on_change, clock=virtual.now)
        own.want(frozenset([WEB]))
        with pytest.raises(ExceptionGroup, match="unhandled errors"):
            await own.run()

    virtual.run(main())


def test_no_row_holds_a_key() -> None:
    async def main() -> None:
        async with running(MoodyIssuer(), WEB, DB) as agent:
            text = repr(agent.store.status()) + repr(agent.changes)
            assert "PRIVATE" not in text
            assert [row["identity"] for row in agent.store.status()] == sorted([str(WEB), str(DB)])

    virtual.run(main())


def test_what_the_store_hands_out_is_an_svid_a_peer_would_accept() -> None:
    async def main() -> None:
        async with running(MoodyIssuer(), WEB) as agent:
            own = agent.changes[0]
            der = make.der(make.first(own.chain_pem))
            assert svid.read_peer(der, "cluster.local", now=virtual.now()).identity == WEB

    virtual.run(main())
