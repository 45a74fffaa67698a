"""What options take and what they do not, and what they are called in the environment: of every command the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from ambient import cli
from ambient.cli import numbers
from ambient.cli.errors import Exit

Run = Callable[..., Result]
AGENT = ("agent", "--source", ".", "--ca-dir", ".")


def commands() -> Iterator[tuple[str, click.Command]]:
    with click.Context(cli.main) as context:
        for name in cli.COMMANDS:
            command = cli.main.get_command(context, name)
            assert command is not None
            yield name, command
            if isinstance(command, click.Group):
                yield from ((f"{name} {below}", each) for below, each in command.commands.items())


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        *(
            (("agent", "--control", text), "is not HOST:PORT (a port from 1 to 65535; an IPv6 address in brackets)")
            for text in ("foo", "foo:", ":15012", "foo:http", "foo:0", "foo:65536", "::1:15012", "http://foo")
        ),
        (("agent", "--control", "ok:1", "--control", "foo"), "'foo' is not HOST:PORT"),
        *(
            (("agent", "--control", "ok:1", "--control-name", text), "expected a DNS name, without port and scheme")
            for text in ("foo:15012", "https://foo", "", "a..b", "a" * 64)
        ),
        *(
            ((*AGENT, "--health-address", text), "expected a DNS name, without port and scheme")
            for text in ("127.0.0.1:15021", "[::1]", "a b", "*")
        ),
        ((*AGENT, "--trust-domain", "A b"), "is no trust domain"),
        ((*AGENT, "--root-namespace", ""), "expected the name of a namespace"),
        ((*AGENT, "--cni-exempt", "kube-system,other"), "expected the name of a namespace"),
        ((*AGENT, "--node", ""), "expected the name of a node"),
        ((*AGENT, "--certificate-hours", "nan"), "at most 1e+09"),
        (("control", "--trust-domain", "spiffe://x"), "is no trust domain"),
        (("control", "--namespace", "a/b"), "expected the name of a namespace"),
        (("check", "-f", ".", "--root-namespace", ""), "expected the name of a namespace"),
        (("ca", "--ca-dir", ".", "--trust-domain", "", "status"), "is no trust domain"),
        (("ca", "--ca-dir", ".", "rotate", "--longest-hours", "1e6"), "is not in the range 0<=x<=87600"),
        (("uninstall", "--wait", "inf"), "at most 1e+09"),
        (("trace", "--for", "1e300"), "at most 1e+09"),
        *((("lab", "apply", "-f", ".", "--timeout", text), "at most 1e+09") for text in ("nan", "inf")),
        (("get", "workloads", "--node", ""), "expected the name of a node"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else "",
)
def test_what_cannot_be_meant_is_wrong_usage(command: tuple[str, ...], expected: str, run: Run) -> None:
    result = run(*command)
    assert (result.exit_code, result.stdout) == (Exit.USAGE, ""), result.output
    assert expected in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "text", ["foo:1", "ambient-control.ambient-system.svc:15012", "10.0.0.1:15012", "[fd00::1]:15012"]
)
def test_where_a_control_plane_may_be(text: str) -> None:
    (option,) = (each for each in dict(commands())["agent"].params if each.name == "control")
    assert option.type.convert(text, None, None) == text


@pytest.mark.parametrize("text", ["", "127.0.0.1", "::", "localhost", "node-1.example_lan"])
def test_where_a_port_may_listen(text: str) -> None:
    (option,) = (each for each in dict(commands())["agent"].params if each.name == "health_address")
    assert option.type.convert(text, None, None) == text


def test_no_span_of_time_is_endless_or_no_number() -> None:
    """click's own range takes both, and clocks neither."""
    for name, command in commands():
        for option in command.params:
            assert type(option.type) is not click.types.FloatRange, f"{name} {option.opts}"
            assert not isinstance(option.type, click.types.FloatParamType) or isinstance(option.type, numbers.Span)


def test_in_the_environment_an_option_is_called_as_on_the_command_line() -> None:
    """So is daemonset.yaml written; click calls it as the program does."""
    for name in ("agent", "control", "uninstall"):
        command = dict(commands())[name]
        with click.Context(command, auto_envvar_prefix="AMBIENT") as context:
            for option in command.params:
                assert isinstance(option, click.Option)
                long = max(option.opts, key=len).removeprefix("--").replace("-", "_").upper()
                meant = option.envvar or f"AMBIENT_{(option.name or '').upper()}"
                assert meant == f"AMBIENT_{long}", f"{name}: {context.command_path} {option.opts}"


def test_every_option_says_what_it_is_for() -> None:
    for name, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{name} {option.opts}"


def test_the_pod_of_a_replica_comes_from_the_environment(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As daemonset.yaml says it."""
    (tmp_path / "kubeconfig").touch()
    monkeypatch.setenv("AMBIENT_POD", "ambient-control-7")
    result = run("control", "--kubeconfig", tmp_path / "kubeconfig")
    assert (result.exit_code, "control plane ambient-control-7 ends" in result.stderr) == (1, True), result.stderr
