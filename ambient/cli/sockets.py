"""Which agents a command talks to, and how they are asked: --socket, a lab's nodes, a cluster's, or this node's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ambient import config
from ambient.cli import kubectl, names
from ambient.cli.errors import Failure, Lacking, Nobody, warn
from ambient.observe import client

NODE_SOCKET = Path("/run/ambient/admin.sock")
DEADLINE_S = 10.0  # for one agent's answer: it takes milliseconds, seconds with a million connections
CLUSTER = "ambient.cluster"  # in click's notes of a command
AT_ONCE = 16  # agents that are asked at the same time
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Agent:
    node: str  # "" where only the agent knows
    socket: Path | kubectl.Pod

    def call(self, verb: str, **args: str) -> Any:
        """Raises client.Unreachable or client.Refused."""
        if isinstance(self.socket, kubectl.Pod):
            return client.result(self.socket.exchange(client.request(verb, **args), DEADLINE_S), self.socket.name)
        return client.call(self.socket, verb, deadline_s=DEADLINE_S, **args)


def options(command: F) -> F:
    """`--node`, `--lab`, `--socket` and `--cluster`."""
    for option in (
        click.option(
            "--cluster",
            is_flag=True,
            expose_value=False,
            callback=_remember_cluster,
            is_eager=True,
            help="The agents of the cluster that kubectl talks to; $AMBIENT_KUBECTL says how to call it.",
        ),
        click.option("--socket", type=click.Path(path_type=Path), help="An agent's admin socket."),
        click.option(
            "--lab",
            type=names.LAB,
            envvar=names.ENV,
            show_envvar=True,
            help=f"A lab. Default: this node's own agent if there is one, else the lab {config.LAB!r} or the only lab.",
        ),
        click.option("--node", type=names.NODE, help="Only this node. Default: all nodes of the lab."),
    ):
        command = option(command)
    return command


def find(node: str | None, lab: str | None, socket: Path | None) -> list[Agent]:
    """At least one, sorted by node. Raises Failure, saying where was looked."""
    if in_cluster():
        if socket is not None or click.get_current_context().get_parameter_source("lab") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--cluster, --socket and --lab exclude each other")
        return _chosen([Agent(pod.node, pod) for pod in kubectl.agents()], node, "the cluster")
    if socket is not None:
        if lab and click.get_current_context().get_parameter_source("lab") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--socket and --lab exclude each other")
        return [Agent(node or "", socket)]
    if lab is None and NODE_SOCKET.exists():
        return [Agent(node or "", NODE_SOCKET)]
    found = _of_lab(_the_lab() if lab is None else lab)
    return _chosen(found, node, "the lab")


def _chosen(found: list[Agent], node: str | None, where: str) -> list[Agent]:
    chosen = [agent for agent in found if node in (None, agent.node)]
    if not chosen:
        nodes = ", ".join(agent.node for agent in found)
        raise Failure(f"there is no node {node!r} in {where}; its nodes are {nodes}")
    return chosen


def in_cluster() -> bool:
    """Whether --cluster was said to the command that runs."""
    return bool(click.get_current_context().meta.get(CLUSTER, False))


def _remember_cluster(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[CLUSTER] = value


def ask(agents: list[Agent], verb: str, **args: str) -> list[tuple[Agent, Any]]:
    """Everybody's answer. One who cannot be reached is warned of, and only when nobody can, it is a failure."""

    def one(agent: Agent) -> Any:
        try:
            return agent.call(verb, **args)
        except client.Unreachable as error:
            return error

    try:
        with ThreadPoolExecutor(min(len(agents), AT_ONCE)) as pool:
            said = list(zip(agents, pool.map(one, agents), strict=True))
    except client.Refused as error:
        raise Failure(str(error)) from error
    answers = [(agent, answer) for agent, answer in said if not isinstance(answer, client.Unreachable)]
    lost = [answer for _, answer in said if isinstance(answer, client.Unreachable)]
    if not answers:
        raise _nobody(lost)
    for sentence in lost:
        warn(f"not everything is shown: {sentence}")
    return answers


def ask_first(agents: list[Agent], verb: str, **args: str) -> tuple[Agent, Any]:
    """The answer of the first who can be reached, where all know the same."""
    lost: list[client.Unreachable] = []
    for agent in agents:
        try:
            return agent, agent.call(verb, **args)
        except client.Unreachable as error:
            lost.append(error)
        except client.Refused as error:
            raise Failure(str(error)) from error
    raise _nobody(lost)


def _nobody(lost: Sequence[client.Unreachable]) -> Failure:
    """An agent that is there and may not be asked is not missing: root is."""
    kind = Lacking if any(isinstance(each, client.Forbidden) for each in lost) else Nobody
    return kind("; ".join(map(str, lost)))


def _the_lab() -> str:
    match names.labs():
        case [only]:
            return only
        case []:
            raise Nobody(
                f"no agent found: neither {NODE_SOCKET} nor a lab below {config.LABS} exists; "
                "start one with `ambient lab up` or `ambient agent`, or name its --socket",
            )
        case several if config.LAB in several:
            return config.LAB
        case several:
            raise click.UsageError(f"there are several labs, name one with --lab: {', '.join(several)}")


def _of_lab(name: str) -> list[Agent]:
    if os.geteuid() != 0:
        raise Lacking(f"agents speak to root only, and so do labs below {config.LABS}: run this as root")
    nodes = config.LABS / name / "nodes"
    found = [Agent(path.parent.parent.name, path) for path in nodes.glob("*/run/admin.sock")]
    if not found:
        if nodes.parent.exists():
            raise Nobody(
                f"lab {name!r} has no agent: it has no nodes, was made with --no-mesh, or they have not started yet"
            )
        raise Nobody(f"there is no lab {name!r}; labs that exist: {', '.join(names.labs()) or 'none'}")
    return sorted(found, key=lambda agent: agent.node)
