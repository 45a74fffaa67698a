"""Which decisions a change touches, and what the engine is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.dataplane import abi
from ambient.dataplane import decisions as module
from ambient.dataplane.decisions import NOTES_MOST, Decisions
from ambient.dataplane.questions import Outbound, Outcome, Peer, Plaintext, Question, Request
from ambient.model.mesh import Identity, address
from ambient.observe.records import Flow

ALLOW = Outcome(verdict=abi.Verdict.CARRY, flow=Flow(reporter="source"), deps=frozenset({"svc:shop/web"}))
DENY = Outcome(
    verdict=abi.Verdict.REFUSE,
    flow=Flow(reporter="source", verdict="deny", rule="because", reason="denied_by_policy"),
    deps=frozenset({"svc:shop/web", "policy:shop"}),
)


class Judge:
    """Answers what it is told to, and counts."""

    def __init__(self, outcome: Outcome = ALLOW) -> None:
        self.outcome = outcome
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> Outcome:
        self.asked.append(question)
        return self.outcome


def a_question(port: int = 80, client: str = "shop/client") -> Outbound:
    return Outbound(client, "u", 100, address("10.0.0.1"), port)


def test_the_same_question_is_judged_once_and_has_one_id() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=7)
    assert decisions.decide(a_question()) is decisions.decide(a_question())
    assert decisions.decide(a_question()).id == 7
    assert len(judge.asked) == 1


def test_only_decisions_that_depend_on_a_token_are_judged_again() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=1)
    decisions.decide(a_question())
    judge.outcome = replace(ALLOW, deps=frozenset({"svc:shop/api"}))
    decisions.decide(a_question(81))
    judge.asked.clear()
    decisions.touched({"svc:shop/api", "wl:nobody"})
    assert judge.asked == [a_question(81)]


def test_an_unchanged_outcome_tells_the_engine_nothing_and_stays_in_force() -> None:
    decisions = Decisions(Judge(), first_id=1)
    decision = decisions.decide(a_question())
    assert decisions.touched(ALLOW.deps).forget == []
    assert decisions.decide(a_question()) is decision


def test_a_changed_but_still_allowed_outcome_is_forgotten_not_cut() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=1)
    old = decisions.decide(a_question())
    judge.outcome = replace(ALLOW, host="web")
    revision = decisions.touched(ALLOW.deps)
    assert (revision.forget, revision.cut) == ([old.id], [])
    assert decisions.decide(a_question()).id != old.id
    assert decisions.touched(ALLOW.deps).forget == [], "judged again, it is what it was a moment ago"


def test_a_decision_that_would_now_be_refused_is_cut_and_its_record_says_why() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=1)
    old = decisions.decide(a_question())
    judge.outcome = DENY
    assert decisions.touched(ALLOW.deps).cut == [old]
    flow = old.flow_of(abi.Reason.CUT)
    assert (flow.verdict, flow.rule, flow.reason) == ("deny", "because", "denied_by_policy")
    assert old.flow_of(abi.Reason.CLOSED) == ALLOW.flow, "it was allowed, and over before it was refused"
    assert decisions.touched({"policy:shop"}).cut == [], "it is cut once"


def test_a_refusal_that_becomes_allowed_is_forgotten() -> None:
    judge = Judge(DENY)
    decisions = Decisions(judge, first_id=1)
    old = decisions.decide(a_question())
    judge.outcome = ALLOW
    assert decisions.touched({"policy:shop"}).forget == [old.id]


def test_an_inherited_decision_is_never_given_but_is_cut_when_it_would_be_refused_now() -> None:
    judge = Judge(DENY)
    decisions = Decisions(judge, first_id=100)
    decisions.inherit(5, a_question(), Flow(reporter="source"))
    assert decisions.decide(a_question()).id == 100
    assert [decision.id for decision in decisions.rejudge_all().cut] == [5]


def test_an_inherited_decision_that_cannot_be_read_is_cut_once() -> None:
    decisions = Decisions(Judge(ALLOW), first_id=100)
    decisions.inherit(5, None, Flow(reporter="source", rule="old", verdict="allow"))
    revision = decisions.rejudge_all()
    assert ([each.id for each in revision.cut], revision.forget) == ([5], [5])
    found = decisions.get(5)
    assert found is not None
    assert found.flow_of(abi.Reason.CLOSED).rule == "old", "it was over before the cut"
    ended = found.flow_of(abi.Reason.CUT)
    assert (ended.verdict, ended.reason) == ("deny", "unreadable")
    assert decisions.rejudge_all().cut == []


def test_a_sampled_outcome_is_made_anew_each_time() -> None:
    decisions = Decisions(Judge(replace(ALLOW, sampled=True)), first_id=1)
    assert decisions.decide(a_question()).id != decisions.decide(a_question()).id


def test_what_is_out_of_force_is_dropped_once_the_engine_has_nothing_under_it() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=1)
    old = decisions.decide(a_question())
    judge.outcome = replace(ALLOW, host="web")
    decisions.touched(ALLOW.deps)
    decisions.drop_unused(decisions.out_of_force(), [old.id])
    assert decisions.get(old.id) is old
    decisions.drop_unused(decisions.out_of_force(), [])
    assert decisions.get(old.id) is None
    current = decisions.decide(a_question())
    decisions.drop_unused(decisions.out_of_force(), [])
    assert decisions.get(current.id) is current, "what is in force stays"


def test_notes_are_taken_once_and_bounded() -> None:
    decisions = Decisions(Judge(), first_id=1)
    first = decisions.note("a stranger", "untrusted_peer")
    note = decisions.take_note(first)
    assert note is not None
    assert note.why == "a stranger"
    assert decisions.take_note(first) is None
    numbers = [decisions.note("again", "untrusted_peer") for _ in range(NOTES_MOST + 1)]
    assert decisions.take_note(numbers[0]) is None
    assert decisions.take_note(numbers[-1]) is not None


def test_beyond_the_most_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    decisions = Decisions(Judge(), first_id=1)
    for port in range(5):
        decisions.decide(a_question(port))
    assert decisions.too_many().forget == [1, 2]
    assert decisions.too_many().forget == []
    decisions.drop_unused(decisions.out_of_force(), [])
    assert len(decisions) == 3


def test_a_pod_that_scans_costs_no_other_pod_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' are older, and of every kind of question."""
    monkeypatch.setattr(module, "MOST", 20)
    decisions = Decisions(Judge(), first_id=1)
    peer = Identity("cluster.local", "shop", "client")
    others: list[Question] = [
        *(a_question(port, "shop/quiet") for port in range(7)),
        Plaintext("shop/web", "u", address("10.0.0.9"), address("10.0.0.1"), 80),
        Peer("shop/web", "u", False, address("10.0.0.9"), peer),
        Request("shop/web", "u", peer, address("10.0.0.9"), address("10.0.0.1"), 80),
    ]
    numbers = [decisions.decide(question).id for question in others]
    for port in range(1000):
        decisions.decide(a_question(port, "evil/scanner"))
        assert not set(decisions.too_many().forget) & set(numbers)
    assert [decisions.decide(question).id for question in others] == numbers


def test_of_two_pods_that_scan_neither_has_more_than_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    decisions = Decisions(Judge(), first_id=1)
    forgotten: list[int] = []
    for port in range(50):
        decisions.decide(a_question(port, "evil/one"))
        forgotten += decisions.too_many().forget
    for port in range(50):
        decisions.decide(a_question(port, "evil/other"))
        forgotten += decisions.too_many().forget
    kept = set(range(1, 101)) - set(forgotten)
    assert kept == {*range(46, 51), *range(96, 101)}, "the youngest five of each"


def test_a_sampled_decision_goes_when_the_engine_has_nothing_under_it() -> None:
    decisions = Decisions(Judge(replace(ALLOW, sampled=True)), first_id=1)
    for _ in range(10):
        decisions.decide(a_question())
    decisions.drop_unused(decisions.out_of_force(), [3])
    assert len(decisions) == 1


def test_what_was_decided_or_retired_while_the_engine_was_listing_is_kept() -> None:
    judge = Judge()
    decisions = Decisions(judge, first_id=1)
    retired = decisions.decide(a_question())
    asked = decisions.out_of_force()
    judge.outcome = replace(ALLOW, sampled=True)
    sampled = decisions.decide(a_question(81))
    decisions.touched(ALLOW.deps)
    decisions.drop_unused(asked, [])
    assert decisions.get(sampled.id) is sampled, "the engine was told of it after it had listed what it has"
    assert decisions.get(retired.id) is retired, "the engine may have used it after it had listed what it has"


def test_new_ids_are_above_every_inherited_one() -> None:
    decisions = Decisions(Judge(), first_id=10)
    decisions.inherit(1000, a_question(1), Flow(reporter="source"))
    assert decisions.decide(a_question(2)).id > 1000
