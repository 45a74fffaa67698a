"""Outcomes reach who follows them: first all, then what is new."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ambient.sources.kubernetes.outcomes import Outcome, Outcomes
from ambient.sources.manifests import Ref
from ambient.sources.reading import Problem
from tests.identity import virtual


def an_outcome(name: str, generation: int = 1, *problems: Problem) -> Outcome:
    ref = Ref("AuthorizationPolicy", f"shop/{name}", "ambient.dev")
    return Outcome(
        ref=ref,
        api_version="ambient.dev/v1alpha1",
        namespace="shop",
        name=name,
        uid="u",
        generation=generation,
        problems=problems,
    )


def put(outcomes: Outcomes, *some: Outcome) -> None:
    for outcome in some:
        outcomes.put(outcome.ref, outcome)


def test_a_follower_gets_all_and_then_the_newest_of_what_changes() -> None:
    async def run() -> None:
        outcomes = Outcomes()
        put(outcomes, an_outcome("a"), an_outcome("b"))
        async with contextlib.aclosing(outcomes.follow()) as batches:
            assert await anext(batches) == [an_outcome("a"), an_outcome("b")]
            put(outcomes, an_outcome("a", 2), an_outcome("a", 3), an_outcome("c"), an_outcome("b"))
            assert await anext(batches) == [an_outcome("a", 3), an_outcome("c")]
            asyncio.get_running_loop().call_later(5, put, outcomes, an_outcome("d"))
            assert await anext(batches) == [an_outcome("d")]

    virtual.run(run())


def test_what_is_gone_before_it_was_told_is_not_told() -> None:
    async def run() -> None:
        outcomes = Outcomes()
        put(outcomes, an_outcome("a"))
        async with contextlib.aclosing(outcomes.follow()) as batches:
            await anext(batches)
            put(outcomes, an_outcome("b"), an_outcome("c"))
            outcomes.put(an_outcome("b").ref, None)
            assert await anext(batches) == [an_outcome("c")]
            assert outcomes.all.keys() == {an_outcome("a").ref, an_outcome("c").ref}

    virtual.run(run())


def test_who_stopped_following_costs_nothing_more() -> None:
    async def run() -> None:
        outcomes = Outcomes()
        put(outcomes, an_outcome("a"))
        batches = outcomes.follow()
        await anext(batches)
        await batches.aclose()
        put(outcomes, an_outcome("b"))
        assert not outcomes._followers

    virtual.run(run())


def test_the_same_again_is_no_news() -> None:
    async def run() -> None:
        outcomes = Outcomes()
        problem = Problem("spec", "a", "b")
        put(outcomes, an_outcome("a", 1, problem))
        async with contextlib.aclosing(outcomes.follow()) as batches:
            await anext(batches)
            put(outcomes, an_outcome("a", 1, problem))
            outcomes.put(an_outcome("x").ref, None)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(batches), 60)

    virtual.run(run())
