"""Callers whose tokens are nothing: they cost few questions, and nobody else theirs."""

from __future__ import annotations

import asyncio

import pytest

from ambient.control import callers, strikes
from ambient.xds.caller import CannotAuthenticate, Unauthenticated
from tests.identity import virtual
from tests.identity.test_tokens import a_token

from .desk import AGENT, Desk, an_answer, at_the_desk, bound, forged


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
