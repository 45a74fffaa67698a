"""Callers: nobody is believed whom the API server does not vouch for, and it is not asked more than it must."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ambient.control import callers
from ambient.model.world import World
from ambient.xds.caller import CannotAuthenticate, Unauthenticated
from tests.identity import virtual
from tests.identity.test_tokens import a_token

from .desk import AGENT, Desk, a_world, an_answer, at_the_desk, bound


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
