"""What the machines report, read from their JUnit files. Pure: texts in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Results:
    """Tests by name, seconds they took."""

    passed: dict[str, float]
    failed: dict[str, float]

    @property
    def ran(self) -> int:
        return len(self.passed) + len(self.failed)


def merged(reports: Iterable[str]) -> Results:
    """From the texts of JUnit files. A test that was run again counts once."""
    passed: dict[str, float] = {}
    failed: dict[str, float] = {}
    for report in reports:
        for case in ElementTree.fromstring(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
            (failed if bad else passed)[name] = float(case.get("time", 0))
    return Results({name: took for name, took in passed.items() if name not in failed}, failed)
