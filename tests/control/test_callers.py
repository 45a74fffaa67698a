"""Callers: nobody is believed whom the API server does not vouch for, and it is not asked more than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ambient.control import callers, strikes
from ambient.control.callers import Callers
from ambient.model.mesh import Node, Workload
from ambient.model.world import World
from ambient.xds.caller import Caller, CannotAuthenticate, Unauthenticated
from ambient.xds.served import PEER
from tests.identity import virtual
from tests.identity.test_tokens import a_token

from .apiserver import ApiServer

ACCOUNT = "system:serviceaccount:ambient-system:ambient-agent"
EXTRA = "authentication.kubernetes.io/"
AGENT = Caller(
    namespace="ambient-system", service_account="ambient-agent", pod="agent-1", pod_uid="uid-agent-1", node="node-1"
)


def an_answer(**extra: str | None) -> dict[str, Any]:
    """A TokenReview's status; an extra that is None is left out."""
    given = {"pod-name": "agent-1", "pod-uid": "uid-agent-1", "node-name": "node-1"} | {
        key.replace("_", "-"): value for key, value in extra.items()
    }
    said = {EXTRA + key: [value] for key, value in given.items() if value is not None}
    return {"authenticated": True, "audiences": ["ambient-control"], "user": {"username": ACCOUNT, "extra": said}}


def a_world(*, uid: str = "uid-agent-1", node: str = "node-1") -> World:
    agent = Workload(
        namespace="ambient-system",
        name="agent-1",
        uid=uid,
        node=node,
        service_account="ambient-agent",
        host_network=True,
    )
    return World.build(nodes=[Node(name="node-1")], workloads=[agent])


def bound(uid: str = "uid-agent-1", **more: Any) -> str:
    """A token of agent-1."""
    return a_token(**{"kubernetes.io": {"pod": {"name": "agent-1", "uid": uid}, **more}})


def forged(number: int) -> str:
    """It says all that a good one says; who signed it is the API server's to see."""
    return a_token(jti=str(number))


class Desk:
    """Callers, the API server behind them, and the World beside."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.server.review = lambda _: an_answer()
        self.world = a_world()
        self.callers = Callers(
            self.server.api(), accounts=["ambient-system/ambient-agent"], world=lambda: self.world, now=virtual.now
        )

    async def admit(self, token: str = "", peer: str = "10.0.0.1") -> Caller:
        said = {"x": "y", "authorization": f"Bearer {token or a_token()}", PEER: peer}
        return await self.callers.authenticate(said)

    async def refusal(self, token: str = "") -> Unauthenticated:
        with pytest.raises(Unauthenticated) as refused:
            await self.admit(token)
        return refused.value


def at_the_desk(test: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Desk())

    virtual.run(main())


def test_a_caller_is_the_pod_its_token_is_bound_to_and_the_node_that_runs_it() -> None:
    async def test(desk: Desk) -> None:
        assert await desk.admit() == AGENT
        assert desk.server.reviews[0]["spec"] == {"token": a_token(), "audiences": ["ambient-control"]}

    at_the_desk(test)


def test_before_kubernetes_1_32_the_world_says_which_node() -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: an_answer(node_name=None)
        assert await desk.admit() == AGENT

    at_the_desk(test)


def test_a_pod_the_world_has_not_heard_of_yet_is_known_by_its_token() -> None:
    async def test(desk: Desk) -> None:
        desk.world = World.build()
        assert await desk.admit() == AGENT

    at_the_desk(test)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("no.token", "bad_token"),
        (a_token(aud=["https://kubernetes.default.svc"]), "other_audience"),
        (a_token(sub="system:serviceaccount:shop:web"), "other_account"),
        (a_token(sub="system:serviceaccount:ambient-system:ambient-agent-2"), "other_account"),
        (a_token(**{"kubernetes.io": {}}), "not_pod_bound"),
        (a_token(exp=virtual.EPOCH.timestamp() - 61), "expired"),
        (bound(node={"name": "node-2"}), "node_mismatch"),
    ],
    ids=["garbage", "audience", "account", "a longer name", "no pod", "expired", "another node"],
)
def test_who_could_only_be_refused_is_refused_without_a_question(token: str, reason: str) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.refusal(token)).reason == reason
        assert not desk.server.requests
        assert desk.callers.refused == {reason: 1}

    at_the_desk(test)


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        ({"authenticated": False, "error": "token has been invalidated"}, "refused", "token has been invalidated"),
        ({}, "refused", "no reason"),
        (an_answer() | {"audiences": ["elsewhere"]}, "other_audience", "elsewhere"),
        (an_answer() | {"audiences": None}, "other_audience", "None"),
        (an_answer() | {"user": {"username": "system:serviceaccount:shop:web"}}, "other_account", "shop:web"),
        (an_answer(pod_name=None), "not_pod_bound", "no pod"),
        (an_answer(pod_uid=None), "not_pod_bound", "no pod"),
        (an_answer(node_name="node-2"), "node_mismatch", "runs on node-2, the API on node-1"),
    ],
    ids=["no", "nothing", "audience", "no audience", "account", "no pod", "no uid", "another node"],
)
def test_whom_the_api_server_does_not_vouch_for_is_refused(answer: dict[str, Any], reason: str, says: str) -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: answer
        refusal = await desk.refusal()
        assert refusal.reason == reason
        assert says in str(refusal)

    at_the_desk(test)


def test_a_caller_whose_node_nobody_knows_is_refused() -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: an_answer(node_name=None)
        desk.world = a_world(uid="an earlier one")
        assert (await desk.refusal()).reason == "no_node"

    at_the_desk(test)


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Basic dTpw"}, {"authorization": "Bearer"}])
def test_no_token_is_no_caller(metadata: dict[str, str]) -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(Unauthenticated, match="no token was sent"):
            await desk.callers.authenticate(metadata)

    at_the_desk(test)


def test_the_api_server_is_asked_once_however_many_calls_there_are() -> None:
    async def test(desk: Desk) -> None:
        assert await asyncio.gather(*(desk.admit() for _ in range(50))) == [AGENT] * 50
        await asyncio.sleep(callers.RECHECK.total_seconds() - 1)
        await desk.admit()
        assert len(desk.server.reviews) == 1
        await asyncio.sleep(2)
        await desk.admit()
        assert len(desk.server.reviews) == 2

    at_the_desk(test)


def test_one_who_gives_up_waiting_takes_the_answer_from_nobody() -> None:
    async def test(desk: Desk) -> None:
        gate = asyncio.Event()
        desk.server.order("POST", "tokenreviews", gate=gate, times=1)
        impatient, patient = (asyncio.create_task(desk.admit(), name="caller") for _ in range(2))
        await asyncio.sleep(0.1)
        impatient.cancel()
        gate.set()
        assert await patient == AGENT
        assert len(desk.server.reviews) == 1

    at_the_desk(test)


def test_a_token_is_asked_about_again_before_it_expires_not_after() -> None:
    async def test(desk: Desk) -> None:
        token = a_token(exp=virtual.EPOCH.timestamp() + 120)
        await desk.admit(token)
        await asyncio.sleep(59)
        await desk.admit(token)
        assert len(desk.server.reviews) == 1
        await asyncio.sleep(2)
        desk.server.review = lambda _: {"authenticated": False, "error": "token has expired"}
        assert (await desk.refusal(token)).reason == "refused"

    at_the_desk(test)


def test_a_no_is_repeated_without_a_question_but_not_for_long() -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: {"authenticated": False}
        for _ in range(20):
            await desk.refusal()
        assert len(desk.server.reviews) == 1
        assert desk.callers.refused == {"refused": 20}
        desk.server.review = lambda _: an_answer()
        await asyncio.sleep(callers.REFUSED_FOR.total_seconds() + 1)
        assert await desk.admit() == AGENT

    at_the_desk(test)


@pytest.mark.parametrize("successor", [None, "uid-agent-1b"], ids=["left", "replaced"])
def test_a_pod_that_the_world_saw_leave_is_asked_about_at_once(successor: str | None) -> None:
    async def test(desk: Desk) -> None:
        await desk.admit()
        desk.world = a_world(uid=successor) if successor else World.build()
        desk.server.review = lambda _: {"authenticated": False, "error": "pod agent-1 is gone"}
        assert "pod agent-1 is gone" in str(await desk.refusal())

    at_the_desk(test)


def test_a_world_that_was_wrong_about_it_leaves_the_last_word_to_the_api_server() -> None:
    async def test(desk: Desk) -> None:
        await desk.admit()
        desk.world = World.build()
        for _ in range(10):
            assert await desk.admit() == AGENT
        assert len(desk.server.reviews) == 2

    at_the_desk(test)


def test_a_yes_that_the_api_server_had_cached_itself_is_not_good_for_long() -> None:
    """It goes on vouching for some ten seconds for a pod that has been deleted."""

    async def test(desk: Desk) -> None:
        await desk.admit()
        desk.world = World.build()
        assert await desk.admit() == AGENT
        desk.server.review = lambda _: {"authenticated": False, "error": "pod agent-1 is gone"}
        await asyncio.sleep(callers.UNSEEN.total_seconds() + 1)
        await desk.refusal()

    at_the_desk(test)


def test_while_the_api_server_is_away_who_was_known_is_known_until_its_token_ends() -> None:
    async def test(desk: Desk) -> None:
        await desk.admit()
        desk.server.offline = True
        await asyncio.sleep(1800)
        assert await desk.admit() == AGENT
        with pytest.raises(CannotAuthenticate, match="cannot be asked"):
            await desk.admit(a_token(exp=virtual.EPOCH.timestamp() + 7200))
        await asyncio.sleep(1800 - 60)
        with pytest.raises(CannotAuthenticate):
            await desk.admit()

    at_the_desk(test)


def test_a_pod_that_left_is_not_let_in_because_nobody_can_be_asked() -> None:
    async def test(desk: Desk) -> None:
        await desk.admit()
        desk.world, desk.server.offline = World.build(), True
        with pytest.raises(CannotAuthenticate):
            await desk.admit()

    at_the_desk(test)


def test_a_silent_api_server_is_not_waited_for_long() -> None:
    async def test(desk: Desk) -> None:
        with desk.server.trouble("POST", "tokenreviews", gate=asyncio.Event()):
            began = asyncio.get_running_loop().time()
            with pytest.raises(CannotAuthenticate, match="no answer"):
                await desk.admit()
            assert asyncio.get_running_loop().time() - began == pytest.approx(callers.REVIEW_S)

    at_the_desk(test)


def test_strangers_take_nobodys_place_in_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REMEMBERED", 5)

    async def test(desk: Desk) -> None:
        await desk.admit()
        for number in range(10):
            await desk.refusal(a_token(aud=[f"other-{number}"]))
        desk.server.offline = True
        assert await desk.admit() == AGENT

    at_the_desk(test)


def test_strangers_whom_the_api_server_is_slow_to_refuse_keep_nobody_waiting() -> None:
    async def test(desk: Desk) -> None:
        await desk.admit()
        await asyncio.sleep(callers.RECHECK.total_seconds() + 1)
        with desk.server.trouble("POST", "tokenreviews", gate=asyncio.Event()):
            forged = [a_token(jti=number) for number in range(10 * callers.REVIEWS)]
            waiting = asyncio.gather(*map(desk.admit, forged), return_exceptions=True)
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            assert await desk.admit() == AGENT
            assert asyncio.get_running_loop().time() - began == pytest.approx(callers.REVIEW_S)
            await waiting

    at_the_desk(test)


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REMEMBERED", 5)

    async def test(desk: Desk) -> None:
        await desk.admit()
        for number in range(10):
            await desk.refusal(a_token(aud=[f"other-{number}"]))
            await desk.admit()  # who keeps calling is not pushed out
        assert len(desk.callers._strangers) == 5
        assert len(desk.server.reviews) == 1

    at_the_desk(test)


def test_no_token_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: {"authenticated": False}
        await desk.refusal()
        desk.server.offline = True
        with pytest.raises(CannotAuthenticate):
            await desk.admit(a_token(exp=virtual.EPOCH.timestamp() + timedelta(days=1).total_seconds()))

    caplog.set_level("DEBUG")
    at_the_desk(test)
    assert "refused a caller" in caplog.text
    assert a_token()[:40] not in caplog.text


def test_a_token_of_a_pod_that_the_world_does_not_have_is_asked_about_all_the_same() -> None:
    """The World may lag behind; what is not in it is not refused, it only waits in a shorter queue."""

    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: an_answer(pod_uid="uid-new")
        assert (await desk.admit(bound("uid-new", node={"name": "node-7"}))).pod_uid == "uid-new"

    at_the_desk(test)


def test_who_keeps_forging_costs_few_questions_and_others_none_of_theirs() -> None:
    async def test(desk: Desk) -> None:
        good = await desk.admit()
        desk.server.review = lambda spec: (
            an_answer() if spec["token"] == bound() else {"authenticated": False, "error": "invalid signature"}
        )
        for number in range(strikes.BURST):
            assert (await desk.refusal(forged(number))).reason == "refused"
        asked = len(desk.server.reviews)
        for number in range(100, 150):
            with pytest.raises(CannotAuthenticate, match=r"tokens from 10\.0\.0\.1"):
                await desk.admit(forged(number))
        assert len(desk.server.reviews) == asked
        assert desk.callers.refused["throttled"] == 50
        assert await desk.admit() == good, "what was good is remembered"
        assert await desk.admit(bound(), peer="10.0.0.2") == good, "another peer is asked about"
        await asyncio.sleep(strikes.BACK.total_seconds() + 0.1)
        assert (await desk.refusal(forged(200))).reason == "refused", "and he again, later"

    at_the_desk(test)


def test_questions_that_are_still_open_count() -> None:
    async def test(desk: Desk) -> None:
        desk.server.review = lambda _: {"authenticated": False, "error": "invalid signature"}
        ends = await asyncio.gather(*(desk.admit(forged(each)) for each in range(100)), return_exceptions=True)
        assert [type(each) for each in ends].count(Unauthenticated) == strikes.BURST
        assert len(desk.server.reviews) == strikes.BURST

    at_the_desk(test)


def test_many_who_come_at_once_from_one_address_are_all_let_in() -> None:
    """Whatever hides the agents' own addresses."""

    async def test(desk: Desk) -> None:
        ends = await asyncio.gather(*(desk.admit(forged(each)) for each in range(10 * strikes.BURST)))
        assert ends == [AGENT] * 10 * strikes.BURST
        assert not desk.callers.refused

    at_the_desk(test)


def test_a_token_that_was_good_is_asked_about_again_whatever_else_its_peer_says() -> None:
    async def test(desk: Desk) -> None:
        good = await desk.admit()
        desk.server.review = lambda spec: (
            an_answer() if spec["token"] == a_token() else {"authenticated": False, "error": "invalid signature"}
        )
        for number in range(strikes.BURST):
            await desk.refusal(forged(number))
        await asyncio.sleep(1)
        desk.callers._known[next(iter(desk.callers._known))].until = virtual.now()
        asked = len(desk.server.reviews)
        assert await desk.admit() == good
        assert len(desk.server.reviews) == asked + 1

    at_the_desk(test)


def test_an_api_server_that_is_away_makes_nobody_a_forger() -> None:
    async def test(desk: Desk) -> None:
        desk.server.offline = True
        for number in range(3 * strikes.BURST):
            with pytest.raises(CannotAuthenticate, match="cannot be asked"):
                await desk.admit(forged(number))

    at_the_desk(test)
