"""What is made once of each flow."""

from __future__ import annotations

import dataclasses

import pytest

from ambient.observe import perflow
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Flow


def test_it_is_made_once_and_anew_for_an_equal_flow() -> None:
    made: list[Flow] = []
    per_flow = PerFlow(lambda flow: made.append(flow) or len(made))
    flow = Flow(reporter="source")
    assert [per_flow.of(flow), per_flow.of(flow), per_flow.of(dataclasses.replace(flow))] == [1, 1, 2]


def test_a_flow_is_kept_so_that_its_place_in_memory_is_nobody_elses() -> None:
    per_flow = PerFlow(lambda flow: flow.rule)
    assert [per_flow.of(Flow(reporter="source", rule=str(number))) for number in range(100)] == [
        str(number) for number in range(100)
    ]


def test_flows_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perflow, "MOST", 10)
    made: list[Flow] = []
    per_flow = PerFlow(made.append)
    first = Flow(reporter="source")
    for _ in range(10):
        per_flow.of(first)
        per_flow.of(Flow(reporter="source"))
    assert made.count(first) > 1
