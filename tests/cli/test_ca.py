"""`ambient ca`: a rotation step by step, wherever the roots are kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ambient.cli import kubectl, main
from ambient.control import api
from ambient.control.authority import ClusterAuthority
from ambient.identity import roots
from ambient.identity.ca import EmbeddedCA
from tests.control.apiserver import ApiServer

Run = Callable[..., Result]


@pytest.fixture(params=["directory", "cluster"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ambient ca` on a CA that has just been founded."""
    if request.param == "directory":
        EmbeddedCA.open(tmp_path / "ca", "cluster.local")
        where = ["--ca-dir", str(tmp_path / "ca")]
    else:
        server = ApiServer()
        monkeypatch.setattr(api, "connect", lambda *_: server.api())
        asyncio.run(ClusterAuthority(server.api(), "ambient-system", "cluster.local").found())
        where = ["--cluster"]
    return lambda *arguments: CliRunner().invoke(main, ["ca", *where, *arguments])


def roles(run: Run) -> list[str]:
    return [row["role"] for row in json.loads(run("status", "-o", "json").output)]


def test_status_shows_who_signs_and_never_a_key(run: Run) -> None:
    assert roles(run) == ["signs"]
    assert "PRIVATE" not in run("status").output


def test_rotate_takes_one_step_at_a_time_and_says_what_comes_next(run: Run) -> None:
    result = run("rotate")
    assert result.exit_code == 0
    assert "is trusted, beside" in result.output
    assert roles(run) == ["signs", "will sign"]
    refused = run("rotate")
    assert refused.exit_code == 1
    assert "switch after" in refused.output
    assert roles(run) == ["signs", "will sign"]
    assert "next: trust" in run("rotate", "--at-once").output
    assert "drop it after" in run("rotate").output
    assert "the rotation is finished" in run("rotate", "--longest-hours", "0").output
    assert roles(run) == ["signs"]


def test_rotate_goes_through_at_once_if_told_to(run: Run) -> None:
    result = run("rotate", "--wait", "--at-once", "--longest-hours", "0")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 3
    assert roles(run) == ["signs"]


def test_rotate_waits_for_each_step_to_be_safe(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = timedelta(0)

    def sleep(seconds: float) -> None:
        nonlocal passed
        passed += timedelta(seconds=seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr("ambient.cli.ca._now", lambda: datetime.now(UTC) + passed)
    result = run("rotate", "--wait", "--longest-hours", "24")
    assert result.exit_code == 0, result.output
    assert result.output.count("waiting: ") == 2
    assert abs(passed - roots.SETTLE - timedelta(hours=24)) < timedelta(seconds=5)
    assert roles(run) == ["signs"]


def test_each_step_can_be_taken_by_its_name(run: Run) -> None:
    new = run("add-root").output.strip()
    assert run("switch-signer").exit_code == 1
    assert run("switch-signer", "--at-once").output.strip() == new
    assert run("drop-old-root").exit_code == 1
    assert run("drop-old-root", "--longest-hours", "0").output.strip() == new
    assert roles(run) == ["signs"]


@pytest.mark.parametrize("where", [[], ["--cluster", "--ca-dir", "/tmp"]], ids=["nowhere", "twice"])
def test_where_the_ca_is_must_be_said_once(where: list[str]) -> None:
    result = CliRunner().invoke(main, ["ca", *where, "status"])
    assert result.exit_code == 2
    assert "either --ca-dir DIRECTORY or --cluster" in result.output


def test_a_cluster_without_a_ca_gets_none_from_whoever_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ApiServer()
    monkeypatch.setattr(api, "connect", lambda *_: server.api())
    for command in ("status", "rotate"):
        result = CliRunner().invoke(main, ["ca", "--cluster", command])
        assert result.exit_code == 1
        assert "there is no Secret ambient-system/ambient-ca with a CA" in result.output
    assert not server.objects


def test_the_cluster_is_the_one_that_the_named_kubectl_talks_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the current context of a kubeconfig: another cluster's root would be replaced."""
    other = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other",
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "me"}}],
        "clusters": [{"name": "other", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "me", "user": {"token": "x"}}],
    }
    fake = tmp_path / "kubectl"
    fake.write_text(
        "#!/bin/sh\n[ \"$*\" = '--context other config view --raw --minify --flatten --output json' ] || exit 1\n"
    )
    with fake.open("a") as file:
        file.write(f"cat <<'END'\n{json.dumps(other)}\nEND\n")
    fake.chmod(0o755)
    monkeypatch.setenv("AMBIENT_KUBECTL", f"{fake} --context other")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    dialled, connect = [], api.connect

    def told(kubeconfig: Path | None) -> api.LightkubeApi:
        assert kubeconfig is not None
        dialled.append(json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        return connect(kubeconfig)

    monkeypatch.setattr(api, "connect", told)
    kubectl._command.cache_clear()
    result = CliRunner().invoke(main, ["ca", "--cluster", "status"])
    kubectl._command.cache_clear()
    assert result.exit_code == 1
    assert "ConnectError" in result.output
    assert dialled == ["https://127.0.0.1:9"]


def test_a_cluster_that_cannot_be_reached_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ApiServer()
    server.offline = True
    monkeypatch.setattr(api, "connect", lambda *_: server.api())
    result = CliRunner().invoke(main, ["ca", "--cluster", "status"])
    assert result.exit_code == 1
    assert "cannot get Secret ambient-system/ambient-ca: ConnectError" in result.output
