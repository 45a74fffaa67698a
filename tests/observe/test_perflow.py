"""What is made once of each flow."""

from __future__ import annotations

import dataclasses

from ambient.observe.perflow import PerFlow
from ambient.observe.records import Flow, Form


def test_it_is_made_once_and_anew_for_an_equal_flow() -> None:
    made: list[Flow] = []
    per_flow = PerFlow(lambda flow: made.append(flow) or len(made))
    flow = Flow(reporter="source")
    assert [per_flow.of(flow), per_flow.of(flow), per_flow.of(dataclasses.replace(flow))] == [1, 1, 2]


def test_a_flow_at_the_place_in_memory_of_one_that_is_gone_is_another() -> None:
    per_flow = PerFlow(lambda flow: flow.rule)
    assert [per_flow.of(Flow(reporter="source", rule=str(number))) for number in range(100)] == [
        str(number) for number in range(100)
    ]


def test_what_was_made_of_a_flow_goes_with_it() -> None:
    forms = PerFlow(Form)
    kept = Flow(reporter="source")
    for number in range(10):
        forms.of(kept)
        forms.of(Flow(reporter="source", rule=str(number)))
    assert len(forms) == 1
    del kept
    assert len(forms) == 0
