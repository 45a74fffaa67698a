"""A pytest plugin, inside a machine: the machines share the tests, file by file; who is free takes the next.

A whole file, because its tests share a lab. Which machine runs a file is decided by who makes its directory first.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

CLAIMS = "AMBIENT_VM_CLAIMS"  # a directory that all machines of a run see
STOP = "stop"  # a file in there: no further test is begun


class Share:
    """The files that this machine took, and those it did not get."""

    def __init__(self, claims: Path, say: Callable[[str], None] = print) -> None:
        self._claims, self._say = claims, say
        self._ours: dict[str, bool] = {}

    def is_ours(self, file: str) -> bool:
        """Take it, if no other machine has."""
        if file not in self._ours:
            try:
                (self._claims / file.replace("/", "+")).mkdir()
                self._ours[file] = True
            except FileExistsError:
                self._ours[file] = False
        return self._ours[file]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """True: all is done."""
        if (self._claims / STOP).exists():
            item.session.shouldstop = "the time is up"
            return True
        if not self.is_ours(_file(item)):
            return True
        if nextitem is None or _file(nextitem) == _file(item):
            return None
        # Whose the next file is nobody knows yet. What pytest kept for it would be in the way of another one's.
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """At once, and not at the end only: a machine may not come to its end."""
        if report.outcome not in ("passed", "skipped"):
            self._say(f"{report.nodeid}, {report.when}:\n{report.longreprtext}")


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def pytest_configure(config: pytest.Config) -> None:
    if CLAIMS in os.environ:

        def say(text: str) -> None:
            reporter = config.pluginmanager.get_plugin("terminalreporter")
            assert reporter is not None, "pytest has one whenever it runs tests"
            reporter.write_line(text)

        config.pluginmanager.register(Share(Path(os.environ[CLAIMS]), say), "share")


def pytest_report_header() -> str:
    return f"Linux {platform.release()}"
