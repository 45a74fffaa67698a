"""A cluster's agents, reached as its admin reaches pods: through kubectl, with the user's own kubeconfig and rights.

Agents listen to root of their node only, so somebody has to ask from within: `ambient ask`, in the agent's container.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient.cli.errors import Lacking, Nobody
from ambient.observe import client

ENV = "AMBIENT_KUBECTL"  # another program, or options for it: "kubectl --context prod"
NAMESPACE = "ambient-system"
SELECTOR = "app.kubernetes.io/name=ambient-agent"
CONTAINER = "agent"
_LOG = re.compile(r"[IWEF]\d{4} ")  # how klog begins a line: severity, month and day
SLACK_S = 10.0  # beyond the agent's own deadline: kubectl's start, the API server, a Python in the pod


@dataclass(frozen=True, slots=True)
class Pod:
    """An agent's."""

    name: str
    node: str

    def exchange(self, asked: bytes, deadline_s: float) -> bytes:
        """One line there, one line back. Raises client.Unreachable."""
        place = ["--namespace", NAMESPACE, "exec", "--stdin", self.name, "--container", CONTAINER, "--"]
        try:
            done = _run([*place, "ambient", "ask"], asked, deadline_s + SLACK_S)
        except subprocess.TimeoutExpired:
            raise client.NoAnswer(f"pod {self.name} on node {self.node} did not answer in time") from None
        if done.returncode:
            raise client.Unreachable(f"the agent in pod {self.name} on node {self.node} cannot be asked: {_why(done)}")
        return done.stdout


def agents() -> list[Pod]:
    """The pods of the DaemonSet, sorted by node; at least one."""
    found = _get("pods", "--namespace", NAMESPACE, "--selector", SELECTOR)
    pods = [
        Pod(item["metadata"]["name"], item["spec"].get("nodeName", ""))
        for item in found
        if item["status"].get("phase") == "Running" and "deletionTimestamp" not in item["metadata"]
    ]
    if not pods:
        raise Nobody(f"no pod {SELECTOR} runs in namespace {NAMESPACE}: see docs/install.md")
    return sorted(pods, key=lambda pod: (pod.node, pod.name))


def pods_of(namespace: str) -> frozenset[str]:
    """The namespace's pods that are not over, as the API server knows them: namespace/name."""
    return frozenset(
        f"{namespace}/{item['metadata']['name']}"
        for item in _get("pods", "--namespace", namespace)
        if item["status"].get("phase") not in ("Succeeded", "Failed")
    )


def _get(*what: str) -> list[dict[str, Any]]:
    try:
        done = _run(["get", "--output", "json", *what], b"", SLACK_S)
    except subprocess.TimeoutExpired:
        raise Nobody(f"the API server did not answer `kubectl get {shlex.join(what)}` within {SLACK_S:g} s") from None
    if done.returncode:
        raise Nobody(f"`kubectl get {shlex.join(what)}` failed: {_why(done)}")
    try:
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    except (ValueError, TypeError, KeyError):
        raise Nobody(
            f"`{shlex.join([*_command(), 'get', *what])}` printed no list of objects but {done.stdout[:60]!r}: "
            f"is it kubectl? ${ENV} says which is meant"
        ) from None
    return items


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    """What kubectl complained of, without its log: that repeats an attempt that failed five times."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "\n".join(line for line in lines if not _LOG.match(line)) or f"it ended with {done.returncode}"


def _run(arguments: Sequence[str], asked: bytes, deadline_s: float) -> subprocess.CompletedProcess[bytes]:
    command = _command()
    try:
        return subprocess.run([*command, *arguments], input=asked, capture_output=True, timeout=deadline_s, check=False)
    except OSError as error:
        raise Lacking(
            f"cannot run {command[0]}: {error.strerror}; install kubectl, or say in ${ENV} what it is"
        ) from None


@contextlib.contextmanager
def kubeconfig() -> Iterator[Path | None]:
    """A kubeconfig of the cluster that $AMBIENT_KUBECTL talks to, in memory; None where that is not set."""
    if not os.environ.get(ENV):
        yield None
        return
    view = ["config", "view", "--raw", "--minify", "--flatten", "--output", "json"]
    try:
        done = _run(view, b"", SLACK_S)
    except subprocess.TimeoutExpired:
        raise Nobody(f"`{shlex.join([*_command(), *view])}` did not answer within {SLACK_S:g} s") from None
    if done.returncode:
        raise Nobody(f"`{shlex.join([*_command(), *view])}` failed: {_why(done)}")
    with os.fdopen(os.memfd_create("kubeconfig", os.MFD_CLOEXEC), "wb") as file:
        file.write(done.stdout)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


@functools.cache
def _command() -> list[str]:
    try:
        return shlex.split(os.environ.get(ENV, "")) or ["kubectl"]
    except ValueError as error:
        raise Lacking(f"${ENV} is no command line: {error}") from None
