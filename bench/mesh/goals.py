"""The goals, and whether the figures reach them. Pure.

A ratio is made within each round, whose modes ran minutes apart at most, and then the median is taken: so the machine's
moods cancel out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.mesh import figures
from bench.mesh.figures import Figure, Results
from bench.mesh.loads import LOADS

SAME, ACROSS = ("ambient_same", "none_same"), ("ambient", "envoy")
WHERE = {SAME: "same node, to no mesh", ACROSS: "across nodes, to the Envoys"}
FELT = {
    "p50_us": "p50",
    "p99_us": "p99",
    "gbit_s": "rate",
    "per_s": "rate",
    "cpu": "CPU",
}
AGENT_MB, ENGINE_MB, CONNECTION_KB = 60, 10, 8


@dataclass(frozen=True, slots=True)
class Goal:
    modes: tuple[str, str]  # ours, and what it is compared with
    load: str
    what: str  # see figures.series()
    bound: float
    at_most: bool

    @property
    def title(self) -> str:
        title = next(load.title for load in LOADS if load.name == self.load)
        return f"{title}: {FELT[self.what]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    where: str
    title: str
    bound: float
    at_most: bool
    found: Figure
    unit: str  # "": a ratio

    @property
    def reached(self) -> bool:
        """Of what has several values, one for each process, the worst counts; of ratios the median of the rounds."""
        value = self.found.high if self.unit else self.found.median
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def goal(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g} {self.unit}".rstrip()

    @property
    def measured(self) -> str:
        return f"{figures.text(self.found)} {self.unit}".rstrip()


def _most(modes: tuple[str, str], load: str, what: str, bound: float) -> Goal:
    return Goal(modes, load, what, bound, at_most=True)


def _least(modes: tuple[str, str], load: str, what: str, bound: float) -> Goal:
    return Goal(modes, load, what, bound, at_most=False)


GOALS = (
    *(_most(SAME, "round_trip_1", what, 1.05) for what in ("p50_us", "p99_us")),
    *(_least(SAME, f"bulk_{count}", "gbit_s", 0.97) for count in (1, 8)),
    *(_least(SAME, f"connections_{count}", "per_s", 0.9) for count in (16, 64, 512)),
    *(_most(ACROSS, f"round_trip_{count}", "p50_us", 0.75) for count in (1, 64)),
    *(_most(ACROSS, name, "p99_us", 0.5) for name in ("mixed", "mixed_younger")),
    *(
        goal
        for count in (1, 8)
        for goal in (_least(ACROSS, f"bulk_{count}", "gbit_s", 1.1), _most(ACROSS, f"bulk_{count}", "cpu", 0.9))
    ),
    *(
        goal
        for count in (64, 512)
        for goal in (_least(ACROSS, f"http_{count}", "per_s", 1.3), _most(ACROSS, f"http_{count}", "cpu", 0.6))
    ),
    *(
        goal
        for count in (16, 64, 512)
        for goal in (
            _least(ACROSS, f"connections_{count}", "per_s", 1.5),
            _most(ACROSS, f"connections_{count}", "cpu", 0.5),
        )
    ),
)


def verdicts(results: Results) -> list[Verdict]:
    """What was measured of the goals, in their order."""
    found = [_judge(goal, ratio(results, goal)) for goal in GOALS]
    return [verdict for verdict in found if verdict] + _memory(results)


def ratio(results: Results, goal: Goal) -> list[float]:
    """Ours to theirs, round by round; empty where one of them was not measured."""
    ours, theirs = (figures.series(results, goal.load, mode, goal.what) for mode in goal.modes)
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if other]


def _judge(goal: Goal, found: list[float]) -> Verdict | None:
    if not found:
        return None
    return Verdict(WHERE[goal.modes], goal.title, goal.bound, goal.at_most, Figure.of(found), "")


def _memory(results: Results) -> list[Verdict]:
    idle = results["idle"].get("ambient")
    if not idle:
        return []
    per_connection = [each / 1e3 for each in idle["proxy_bytes"]]
    return [
        _absolute("an agent's memory, idle", idle["agent_mb"], AGENT_MB, "MB"),
        _absolute("an engine's memory, idle", idle["proxy_mb"], ENGINE_MB, "MB"),
        _absolute("an engine's memory, each idle connection", per_connection, CONNECTION_KB, "KB"),
    ]


def _absolute(title: str, values: Iterable[float], bound: float, unit: str) -> Verdict:
    return Verdict("on its own", title, bound, True, Figure.of(values), unit)
