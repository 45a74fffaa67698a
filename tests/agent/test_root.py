"""What an agent says before it does anything."""

from __future__ import annotations

import asyncio
import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from ambient.agent import root


def test_a_node_where_no_connection_could_be_ended_is_said_to_have_no_direct_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def in_order(work: Any) -> Any:
        return work()

    for obstacle in ("", "tcp_diag is missing"):
        monkeypatch.setattr(root.sockdiag, "obstacle", lambda found=obstacle: found)
        assert asyncio.run(root.Agent.unfit(SimpleNamespace(in_order=in_order))) == obstacle  # type: ignore[arg-type]
    (said,) = caplog.messages
    assert said.endswith("because a direct one could not be ended: tcp_diag is missing")


class Reached(Exception):
    """The agent went on to start."""


@pytest.mark.parametrize(("release", "warned"), [("5.14.0-503.el9.x86_64", True), ("6.1.0-57-amd64", False)])
def test_an_older_kernel_than_is_promised_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, release: str, warned: bool
) -> None:
    def start(_: Any) -> None:
        raise Reached

    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "node", release, "#1", "x86_64")))
    monkeypatch.setattr(root, "Agent", start)
    with caplog.at_level(logging.WARNING), pytest.raises(Reached):
        asyncio.run(root.main(None))  # type: ignore[arg-type]
    said = [record.getMessage() for record in caplog.records]
    assert [release in line and "6.1" in line for line in said] == [True] * warned
