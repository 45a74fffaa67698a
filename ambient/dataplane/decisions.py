"""Every decision that is still in force or still has connections, and which of them a change of the World touches.

Pure bookkeeping: it puts questions to the judge it was given and says what the engine must forget or cut; it sends
nothing. The cost of a change is that of the decisions that depend on what changed.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ambient.dataplane import abi
from ambient.dataplane.questions import Hop, Outbound, Outcome, Question, Way, pod_of
from ambient.model import samenode
from ambient.model.mesh import IPAddress
from ambient.observe.records import Flow


@dataclass(slots=True)
class Decision:
    id: int
    question: Question | None  # None: inherited with a label that cannot be read, so it cannot be judged either
    flow: Flow
    outcome: Outcome | None = None  # None: inherited, its details died with the agent that made it
    cut: Flow | None = None  # why its connections were cut
    in_force: bool = True  # the engine may be repeating it
    deps: frozenset[str] = frozenset()
    way: Way | None = None  # as the kernel may go by it under this number: connections that it let through had it
    cut_hops: dict[tuple[IPAddress, int], Flow] = field(default_factory=dict)  # why direct connections there were cut

    def flow_of(self, end: int) -> Flow:
        """For the record of a connection that ended so. One that was over before the cut was allowed to its end."""
        return self.cut if self.cut is not None and end == abi.Reason.CUT else self.flow


@dataclass(frozen=True, slots=True)
class Note:
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Revision:
    """What engine and kernel must be told after the World changed. Cut implies forget."""

    forget: list[int] = field(default_factory=list)
    cut: list[Decision] = field(default_factory=list)
    cut_hops: list[tuple[Decision, Hop]] = field(default_factory=list)  # of what the kernel let through, this alone


# In force at once: pairs of pods and ports that talk, on one node; some 2 KiB each here and there. Beyond it the pod
# that has the most gives way.
MOST = 20_000
NOTES_MOST = 10_000  # refusals whose record is still on its way; each is taken within moments


Recheck = Callable[[Outbound, Hop], samenode.Direct | samenode.Indirect]


class Decisions:
    def __init__(self, judge: Callable[[Question], Outcome], first_id: int, recheck: Recheck | None = None) -> None:
        """`first_id` must be above every id an earlier agent may have used with a living engine or kernel.

        `recheck`: may what went to this hop directly go on?
        """
        self._judge, self._recheck = judge, recheck
        self._ids = itertools.count(first_id)
        self._by_id: dict[int, Decision] = {}
        self._in_force: dict[str, dict[Question, Decision]] = {}  # by pod; each pod's oldest first
        self._in_force_count = 0
        self._by_dep: dict[str, set[int]] = {}
        self._notes: OrderedDict[int, Note] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, number: int) -> Decision | None:
        return self._by_id.get(number)

    def decide(self, question: Question) -> Decision:
        """The decision in force for this question, made now if there is none."""
        pod = pod_of(question)
        known = self._in_force.get(pod, {}).get(question)
        if known is not None:
            return known
        outcome = self._judge(question)
        decision = Decision(
            next(self._ids), question, outcome.flow, outcome, in_force=not outcome.sampled, way=outcome.way
        )
        self._add(decision)
        if not outcome.sampled:
            self._in_force.setdefault(pod, {})[question] = decision
            self._in_force_count += 1
        return decision

    def note(self, why: str, reason: str) -> int:
        """A refusal that answers no question (the peer is nobody): an id for its one record."""
        number = next(self._ids)
        self._notes[number] = Note(reason, why)
        if len(self._notes) > NOTES_MOST:
            self._notes.popitem(last=False)
        return number

    def take_note(self, number: int) -> Note | None:
        return self._notes.pop(number, None)

    def inherit(self, number: int, question: Question | None, flow: Flow, way: Way | None = None) -> None:
        """A decision of an earlier agent that the engine, or the kernel by `way`, still has connections of."""
        self._ids = itertools.count(max(next(self._ids), number + 1))  # the clock may have been set back
        known = self._by_id.get(number)
        if known is None:
            self._add(Decision(number, question, flow, in_force=False, way=way))
        elif way is None:
            known.flow = flow  # of its label, where there is one
        else:
            before = known.way.hops if known.way is not None else ()
            known.way = Way(kind=way.kind, hops=(*before, *(hop for hop in way.hops if hop not in before)))
            known.outcome = known.cut = None  # to be judged, and cut, once more: it has other connections, too

    def touched(self, tokens: Iterable[str]) -> Revision:
        """Judge again what depends on any of these tokens."""
        numbers: set[int] = set()
        for token in tokens:
            numbers |= self._by_dep.get(token, set())
        return self._rejudge(self._by_id[number] for number in sorted(numbers))

    def too_many(self) -> Revision:
        """Those beyond MOST: the oldest of the pod that has the most is forgotten.

        So a scan of ports fills neither agent nor engine, and costs no pod its answers but the one that scans.
        """
        revision = Revision()
        while self._in_force_count > MOST:
            oldest = next(iter(max(self._in_force.values(), key=len).values()))
            self._retire(oldest)
            revision.forget.append(oldest.id)
        return revision

    def rejudge_all(self) -> Revision:
        return self._rejudge([self._by_id[number] for number in sorted(self._by_id)])

    def out_of_force(self) -> frozenset[int]:
        """What is not given again, so that the engine has all it will ever have under it."""
        return frozenset(number for number, decision in self._by_id.items() if not decision.in_force)

    def drop_unused(self, asked: frozenset[int], alive: Iterable[int]) -> None:
        """Drop what has no connection left. `asked`: what was out of force before the engine listed what is alive."""
        for number in asked.difference(alive):
            if number in self._by_id:
                self._drop(self._by_id[number])

    def _rejudge(self, decisions: Iterable[Decision]) -> Revision:
        revision = Revision()
        for decision in list(decisions):
            if decision.question is None:
                revision.forget.append(decision.id)
                self._cut(revision, decision, "its label cannot be read, so it cannot be judged", "unreadable")
                continue
            before, now = decision.outcome, self._judge(decision.question)
            also = self._rejudge_hops(revision, decision)
            self._depend(decision, (decision.deps if before == now else now.deps) | also)
            if before == now:
                continue
            self._retire(decision)
            decision.outcome = now
            revision.forget.append(decision.id)
            if now.verdict is abi.Verdict.REFUSE:
                self._cut(revision, decision, now.flow.rule, now.flow.reason)
        return revision

    def _rejudge_hops(self, revision: Revision, decision: Decision) -> frozenset[str]:
        """Connections to a pod that is no endpoint any more go on, unless it would not let them in; what says so."""
        deps: frozenset[str] = frozenset()
        if decision.way is None or self._recheck is None or not isinstance(decision.question, Outbound):
            return deps
        for hop in decision.way.hops:
            if hop.cookie:
                found = self._recheck(decision.question, hop)
                deps |= found.deps
                end = hop.ip, hop.port
                if isinstance(found, samenode.Indirect) and found.denied and end not in decision.cut_hops:
                    flow = hop.flow or decision.flow
                    decision.cut_hops[end] = replace(flow, verdict="deny", rule=found.said, reason=found.reason)
                    revision.cut_hops.append((decision, hop))
        return deps

    def _cut(self, revision: Revision, decision: Decision, rule: str, reason: str) -> None:
        if decision.cut is None and decision.flow.verdict == "allow":
            decision.cut = replace(decision.flow, verdict="deny", rule=rule, reason=reason)
            revision.cut.append(decision)

    def _add(self, decision: Decision) -> None:
        self._by_id[decision.id] = decision
        if decision.question is not None:
            outcome = decision.outcome or self._judge(decision.question)
            self._depend(decision, outcome.deps)

    def _depend(self, decision: Decision, deps: frozenset[str]) -> None:
        for token in decision.deps - deps:
            dependants = self._by_dep[token]
            dependants.discard(decision.id)
            if not dependants:
                del self._by_dep[token]
        for token in deps - decision.deps:
            self._by_dep.setdefault(token, set()).add(decision.id)
        decision.deps = deps

    def _retire(self, decision: Decision) -> None:
        """Out of force: not given again; kept for the records of its connections, and judged again while it has any."""
        decision.in_force = False
        if decision.question is None:
            return
        pod = pod_of(decision.question)
        of_pod = self._in_force.get(pod, {})
        if of_pod.get(decision.question) is decision:
            del of_pod[decision.question]
            self._in_force_count -= 1
        if not of_pod:
            self._in_force.pop(pod, None)

    def _drop(self, decision: Decision) -> None:
        self._retire(decision)
        self._depend(decision, frozenset())
        del self._by_id[decision.id]
