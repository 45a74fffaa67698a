"""A real engine without an agent, and `ambient uninstall`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ambient.cli import main

from .process import Engine

pytestmark = pytest.mark.kernel


def test_uninstalling_ends_it_though_it_is_nobodys_any_more(tmp_path: Path) -> None:
    """It has no privileges and no user of ours, and its socket still says whose it is."""
    folders = {name: tmp_path / name for name in ("cni-bin-dir", "cni-conf-dir", "run-dir", "bpffs")}
    for folder in folders.values():
        folder.mkdir()
    engine, other = Engine(folders["run-dir"], 2), Engine(tmp_path / "other")
    try:
        words = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
        done = CliRunner().invoke(main, ["uninstall", *words])
        assert (done.exit_code, f"engine {engine.pid}, which an agent had left, is ended" in done.output) == (0, True)
        engine.await_end()
        assert list(folders["run-dir"].glob("engine-*")) == []
        assert other.is_alive()
    finally:
        if engine.is_alive():
            engine.kill()
        other.stop()
