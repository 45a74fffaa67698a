"""Rules for every lane: kernel and cluster tests need root; with AMBIENT_NO_SKIP set, a skipped test is a failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# An example may be slow where the machine is busy; how long a test may take is pytest-timeout's to say.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


# Whose files take longest. They come first: where processes share the files, none is left alone with one of them.
LONG = {"mesh", "lab", "cni"}


# What a shell runs in its background ignores SIGINT, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))  # stable
    if os.geteuid() == 0:
        return
    for item in items:
        for lane in ("kernel", "cluster"):
            if item.get_closest_marker(lane):
                item.add_marker(pytest.mark.skip(reason=f"the {lane} lane needs root"))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shorter than pytest's own, which has the test's name: sockets are made in it, and their paths have 107 bytes."""
    return tmp_path_factory.mktemp("t")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("AMBIENT_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where it must run: {report.longrepr}"
    return report
