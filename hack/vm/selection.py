"""Which tests run in the machines. Reads tests.txt; runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from hack.vm import layout
from hack.vm.errors import VmError

EVERYTHING = ("tests",)


def parse(text: str) -> dict[str, str]:
    """Test -> why it is here. Raises VmError for a line without a reason, or a second one for the same test."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        test, mark, reason = (part.strip() for part in line.partition("#"))
        if not test:
            continue
        if not (mark and reason) or test in found:
            raise VmError(f"{layout.TESTS.name}, line {number}: expected one `test # reason` per test, found {line!r}")
        found[test] = reason
    return found


def chosen(everything: bool, tests: Sequence[str]) -> Sequence[str]:
    """Arguments for pytest: those named, or else the list's."""
    if everything and tests:
        raise VmError("say either which tests, or all of them")
    return tests or (EVERYTHING if everything else tuple(parse(layout.TESTS.read_text())))
