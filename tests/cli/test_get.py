"""`ambient get` and `ambient explain` against real admin sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from observe.worlds import a_pod, a_service, a_world

from ambient.cli.errors import Exit
from ambient.model.mesh import AuthorizationPolicy

from .conftest import abandon, agents, handlers

WORLD = a_world(
    a_pod("shop/client-1", "10.0.0.2", node="a"),
    a_pod("shop/web-1", "10.0.1.2", node="b"),
    a_service("shop/web", "10.96.0.1"),
    AuthorizationPolicy(namespace="shop", name="nobody", selector={"app": "client"}),
)
Run = Callable[..., Result]


@pytest.fixture
def lab(places: Path) -> Iterator[Path]:
    """A lab of two nodes, a and b."""
    nodes = places / "lab" / "one" / "nodes"
    with agents({nodes / node / "run" / "admin.sock": handlers(WORLD, node) for node in "ab"}):
        yield nodes


def rows(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("lab")
def test_workloads_come_from_the_agent_that_captures_them(run: Run) -> None:
    found = rows(run("get", "workloads", "-o", "json"))
    assert [(row["node"], row["name"], row["state"]) for row in found] == [
        ("a", "client-1", "captured"),
        ("b", "web-1", "captured"),
    ]


@pytest.mark.usefixtures("lab")
def test_one_node_shows_its_own(run: Run) -> None:
    assert [row["name"] for row in rows(run("get", "workloads", "--node", "b", "-o", "json"))] == ["web-1"]


@pytest.mark.usefixtures("lab")
def test_what_all_agents_agree_on_is_shown_once(run: Run) -> None:
    assert len(rows(run("get", "services", "-o", "json"))) == 1
    assert len(rows(run("get", "policies", "-o", "json"))) == 1


@pytest.mark.usefixtures("lab")
def test_what_belongs_to_an_agent_has_its_node(run: Run) -> None:
    for noun in ("certificates", "engines"):
        assert [row["node"] for row in rows(run("get", noun, "-o", "json"))] == ["a", "b"]


@pytest.mark.usefixtures("lab")
def test_a_table_in_a_pipe_has_one_whole_line_a_row(run: Run) -> None:
    lines = run("get", "workloads").stdout.splitlines()
    assert lines[0].split()[:3] == ["NODE", "NAMESPACE", "NAME"]
    assert lines[1].endswith("spiffe://cluster.local/ns/shop/sa/client")
    assert len(lines) == 3


@pytest.mark.usefixtures("lab")
def test_nothing_to_show_is_said_on_stderr(run: Run) -> None:
    result = run("get", "connections")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No connections.\n")
    assert rows(run("get", "connections", "-o", "json")) == []


def test_a_socket_may_be_named(lab: Path, run: Run) -> None:
    found = rows(run("get", "workloads", "--socket", lab / "a" / "run" / "admin.sock", "-o", "json"))
    assert [row["name"] for row in found] == ["client-1", "web-1"]


def test_a_dead_agent_is_warned_of_and_the_others_shown(lab: Path, run: Run) -> None:
    (lab / "c" / "run").mkdir(parents=True)
    abandon(lab / "c" / "run" / "admin.sock")
    result = run("get", "services", "-o", "json")
    assert result.exit_code == 0
    assert "not everything is shown: nobody listens at" in result.stderr
    assert len(json.loads(result.stdout)) == 1


def test_a_lab_without_nodes_is_there_and_has_no_agent(places: Path, run: Run) -> None:
    (places / "lab" / "two").mkdir(parents=True)
    result = run("get", "workloads", "--lab", "two")
    assert result.exit_code == Exit.NOBODY
    assert "lab 'two' has no agent: it has no nodes" in result.stderr


def test_whom_only_root_may_ask_is_not_missing(places: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    abandon(places / "admin.sock")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for command in (("get", "workloads"), ("explain", "--from", "shop/a", "--to", "web:80")):
        result = run(*command)
        assert result.exit_code == Exit.LACKING
        assert "it is for root only" in result.stderr


def test_this_nodes_agent_comes_first(places: Path, run: Run) -> None:
    with agents({places / "admin.sock": handlers(WORLD, "b")}):
        found = rows(run("get", "workloads", "-o", "json"))
    assert [row["name"] for row in found] == ["client-1", "web-1"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        pytest.param((), 3, "no agent found: neither", id="nothing there"),
        pytest.param(("--lab", "two"), 3, "there is no lab 'two'; labs that exist: none", id="no such lab"),
        pytest.param(
            ("--socket", "/nowhere/admin.sock"), 3, "there is no admin socket /nowhere/admin.sock", id="no socket"
        ),
        pytest.param(("--socket", "/x", "--lab", "y"), 2, "exclude each other", id="contradiction"),
        pytest.param(("-o", "yaml"), 2, "'yaml' is not one of 'table', 'json'", id="no such format"),
    ],
)
@pytest.mark.usefixtures("places")
def test_no_agent_is_an_exit_code_and_a_sentence(run: Run, args: tuple[str, ...], code: int, says: str) -> None:
    result = run("get", "workloads", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


@pytest.mark.usefixtures("lab")
def test_several_labs_must_be_told_apart(places: Path, run: Run) -> None:
    (places / "lab" / "two" / "nodes").mkdir(parents=True)
    result = run("get", "workloads")
    assert result.exit_code == 2
    assert "name one with --lab: one, two" in result.stderr
    assert run("get", "workloads", "--lab", "one").exit_code == 0
    (places / "lab" / "lab" / "nodes").mkdir(parents=True)
    assert "lab 'lab' has no agent" in run("get", "workloads").stderr  # it is the one that is meant, also here


@pytest.mark.usefixtures("lab")
def test_the_environment_names_a_lab_and_an_option_goes_before_it(
    places: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "lab" / "two" / "nodes").mkdir(parents=True)
    monkeypatch.setenv("AMBIENT_LAB", "two")
    assert "lab 'two' has no agent" in run("get", "workloads").stderr
    assert run("get", "workloads", "--lab", "one").exit_code == 0
    assert run("get", "workloads", "--socket", places / "lab/one/nodes/a/run/admin.sock").exit_code == 0


@pytest.mark.usefixtures("lab")
def test_a_node_that_is_not_there_is_answered_with_those_that_are(run: Run) -> None:
    result = run("get", "workloads", "--node", "z")
    assert result.exit_code == 1
    assert "its nodes are a, b" in result.stderr


@pytest.mark.usefixtures("lab")
def test_explain_tells_the_way_and_exits_with_the_verdict(run: Run) -> None:
    result = run("explain", "--from", "shop/client-1", "--to", "web:80")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == ["shop/client-1 -> web:80", "  Service shop/web: 10.96.0.1:80"]
    assert lines[3:] == [
        "  to 10.0.1.2:8080 (pod shop/web-1 on node b), in a tunnel with mutual TLS",
        "    as spiffe://cluster.local/ns/shop/sa/client, to spiffe://cluster.local/ns/shop/sa/web",
        "    mutual TLS: PERMISSIVE (no PeerAuthentication)",
        "    allow by no policy",
        "allowed",
    ]


@pytest.mark.usefixtures("lab")
def test_explain_exits_with_1_when_the_answer_is_no(run: Run) -> None:
    result = run("explain", "--from", "shop/web-1", "--to", "client-1:80", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["endpoints"][0]["reason"] == "no_allow_matched"


@pytest.mark.usefixtures("lab")
def test_explain_of_an_unknown_pod_is_an_error_with_a_hint(run: Run) -> None:
    result = run("explain", "--from", "shop/nobody", "--to", "web:80")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: there is no pod 'shop/nobody'")
    unknown = run("explain", "--from", "shop/client-1", "--to", "wbe:80")
    assert unknown.stderr.endswith("; there is shop/web, shop/web-1\n")
