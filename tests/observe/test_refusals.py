"""A pod that is refused again and again: no flood of records, and none of its refusals untold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ambient.observe.records import Ending, Flow, Party
from ambient.observe.refusals import ALIKE, MOST, WINDOW_S, Refusals, concerns

FLOW = Flow(
    reporter="source",
    source=Party(workload="near", namespace="shop"),
    verdict="deny",
    rule="registry-only",
    reason="not_in_registry",
    path="none",
)
ENDING = Ending("direct-1", destination="192.0.2.1:80", reason="refused")


class Journal:
    """Keeps what is written; time passes when the test says so."""

    def __init__(self) -> None:
        self.written: list[tuple[Flow, Ending]] = []
        self._later: list[Callable[[], None]] = []
        self.refusals = Refusals(lambda flow, ending: self.written.append((flow, ending)), self._call_later)

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        assert seconds == WINDOW_S
        self._later.append(what)

    def pass_window(self) -> None:
        due, self._later = self._later, []
        for what in due:
            what()

    def refuse(self, times: int, flow: Flow = FLOW, to: str = "192.0.2.1:80") -> None:
        for _ in range(times):
            self.refusals.tell(flow, ENDING._replace(destination=to))

    @property
    def told(self) -> int:
        return sum(1 + ending.suppressed for _, ending in self.written)


def test_a_few_refusals_have_a_record_each() -> None:
    journal = Journal()
    journal.refuse(ALIKE)
    journal.pass_window()
    assert [ending.suppressed for _, ending in journal.written] == [0] * ALIKE
    assert journal.refusals.suppressed == 0


@pytest.mark.parametrize("beyond", [1, 2, 50_000])
def test_of_many_alike_the_last_says_how_many_they_were(beyond: int) -> None:
    journal = Journal()
    journal.refuse(ALIKE + beyond)
    assert len(journal.written) == ALIKE, "the first are told at once"
    journal.pass_window()
    assert [ending.suppressed for _, ending in journal.written] == [0] * ALIKE + [beyond - 1]
    assert journal.told == ALIKE + beyond
    assert journal.refusals.suppressed == beyond - 1


def test_a_loop_that_goes_on_is_told_of_in_every_window() -> None:
    journal = Journal()
    for _ in range(5):
        journal.refuse(1000)
        journal.pass_window()
    assert (len(journal.written), journal.told) == (5 * (ALIKE + 1), 5000)


def test_a_loop_hides_no_other_refusal_of_its_pod() -> None:
    journal = Journal()
    journal.refuse(50_000)
    journal.refuse(1, to="192.0.2.2:5432")
    journal.refuse(1, replace(FLOW, rule="another"))
    assert [(flow.rule, ending.destination) for flow, ending in journal.written[ALIKE:]] == [
        ("registry-only", "192.0.2.2:5432"),
        ("another", "192.0.2.1:80"),
    ]


def test_a_scan_is_bounded_by_its_pod_and_hides_no_other_pods_refusals() -> None:
    journal = Journal()
    for port in range(20_000):
        journal.refuse(1, to=f"192.0.2.1:{port}")
    quiet = replace(FLOW, source=Party(workload="quiet", namespace="shop"))
    journal.refuse(1, quiet)
    assert len(journal.written) == MOST + 1
    assert journal.written[-1][0] is quiet
    journal.pass_window()
    assert (len(journal.written), journal.told) == (MOST + 2, 20_001)
    assert journal.written[-1][1].destination == "192.0.2.1:19999"


def test_pods_of_one_name_in_two_namespaces_are_two() -> None:
    journal = Journal()
    journal.refuse(ALIKE + 5)
    journal.refuse(1, replace(FLOW, source=Party(workload="near", namespace="other")))
    assert len(journal.written) == ALIKE + 1


def test_an_agent_that_ends_tells_what_it_has_counted() -> None:
    journal = Journal()
    journal.refuse(ALIKE + 7)
    journal.refusals.close()
    assert journal.told == ALIKE + 7
    journal.pass_window()
    assert journal.told == ALIKE + 7, "once"


def test_a_window_is_kept_of_nobody_who_is_not_refused_any_more() -> None:
    journal = Journal()
    for pod in range(100):
        journal.refuse(20, replace(FLOW, source=Party(workload=f"p{pod}", namespace="shop")))
    journal.pass_window()
    assert not journal.refusals._windows


@pytest.mark.parametrize(
    ("flow", "ending", "does"),
    [
        (FLOW, ENDING, True),
        (replace(FLOW, verdict="allow"), ENDING._replace(reason="closed"), False),
        (FLOW, ENDING._replace(reason="cut"), False),
        (FLOW, ENDING._replace(reason="no_answer"), False),
        (replace(FLOW, reporter="destination"), ENDING, False),
    ],
    ids=["refused on its way out", "allowed", "was open", "nobody decided", "somebody else's, at our pod's door"],
)
def test_every_other_connection_has_its_own_record(flow: Flow, ending: Ending, does: bool) -> None:
    assert concerns(flow, ending) is does
