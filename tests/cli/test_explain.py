"""Who is asked to explain: what a node has met of late its own agent alone knows."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from observe.worlds import a_pod, a_world

from ambient.observe import explain

from .conftest import agents

WORLD = a_world(
    a_pod("shop/here-1", "10.0.0.2", node="a"),
    a_pod("shop/client-1", "10.0.1.2", node="b"),
    a_pod("shop/near-1", "10.0.1.3", node="b"),
)


@pytest.mark.parametrize(
    ("alive", "why"),
    [("ab", "not directly, though on one node: b has met something"), ("a", "")],
    ids=["there", "away"],
)
def test_the_clients_own_node_is_asked_where_it_answers(
    run: Callable[..., Result], places: Path, alive: str, why: str
) -> None:
    nodes = places / "lab" / "one" / "nodes"

    async def answer(node: str, asked: dict[str, str]) -> object:
        met = lambda *_: f"{node} has met something"  # noqa: E731 - of this node
        return await asyncio.to_thread(explain.explain, WORLD, asked["from"], asked["to"], node=node, in_the_way=met)

    with agents({nodes / node / "run" / "admin.sock": {"explain": functools.partial(answer, node)} for node in alive}):
        found = run("explain", "--from", "shop/client-1", "--to", "near-1:8080", "-o", "json")
    assert json.loads(found.stdout)["endpoints"][0]["why"] == why
