"""The certificate bench's arithmetic, and that its agents and its server agree on who is who."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.control.callers import Callers
from ambient.model.world import World
from bench.control import ca_server, certificates, crowd


def test_an_agents_token_is_its_nodes_to_the_real_authentication() -> None:
    callers = Callers(ca_server.Vouching(), accounts=[crowd.ACCOUNT], world=World.build)
    caller = asyncio.run(callers.authenticate({"authorization": f"Bearer {crowd.token_of(7)}"}))
    assert (caller.node, caller.pod) == ("node-7", "agent-7")


def test_every_identity_that_is_asked_for_is_a_pods_of_that_node() -> None:
    world = ca_server.a_world(pods=10, nodes=3)
    assert {pod.service_account for pod in world.workloads_on("node-2")} == {
        crowd.account_of(number) for number in (2, 5, 8)
    }


def test_figures_are_per_request_and_per_second() -> None:
    answers = crowd.Answers(seconds=[0.001] * 98 + [0.5, 0.9], most_under_way=7)
    figures = certificates._figures(answers, used_s=0.2, lasted_s=10)
    assert figures == {
        "per_minute": pytest.approx(600),
        "median_ms": pytest.approx(1),
        "p99_ms": pytest.approx(900),
        "most_under_way": 7,
        "cpu_ms_per_request": pytest.approx(2),
        "cores": pytest.approx(0.02),
    }


def test_a_server_answers_the_crowd(tmp_path: Path) -> None:
    with certificates._server(20, 2) as (_, port, roots):
        asking = crowd.Crowd(port, roots, tmp_path, pods=20, nodes=2)
        answers = asyncio.run(asking.at_rate(100, 0.2))
        assert len(answers.seconds) > 2
