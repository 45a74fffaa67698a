"""Fixtures of the capture tests: a private bpffs, a node with pods, an open Capture on it, and enrolling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import socket
from typing import Protocol

import pytest

from ambient.capture import Capture, Role
from ambient.model.mesh import CaptureSettings

from . import pods


class Enrol(Protocol):
    """Enrol a pod; the listeners are closed when the test ends."""

    def __call__(self, pod: pods.Pod, settings: CaptureSettings = ...) -> Mapping[Role, socket]: ...


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "bpf"
    pods.mount_bpffs(where)
    yield where
    pods.unmount_bpffs(where)


@pytest.fixture
def node() -> Iterator[pods.Node]:
    node = pods.Node()
    yield node
    node.close()


@pytest.fixture
def pod(node: pods.Node) -> pods.Pod:
    return node.pod()


@pytest.fixture
def capture(node: pods.Node, bpffs: Path) -> Iterator[Capture]:
    capture = Capture.open(node.cgroup, bpffs)
    yield capture
    capture.close()


@pytest.fixture
def enrol(capture: Capture) -> Iterator[Enrol]:
    sockets: list[socket] = []

    def enrol(
        pod: pods.Pod,
        settings: CaptureSettings = CaptureSettings(),  # noqa: B008
        *probed: int,
    ) -> Mapping[Role, socket]:
        listeners = capture.enrol(pod.netns, addresses=pod.addresses, settings=settings, probe_ports=frozenset(probed))
        sockets.extend(listeners.values())
        return listeners

    yield enrol
    for each in sockets:
        each.close()
