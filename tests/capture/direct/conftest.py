"""Two enrolled pods of one node, verdicts between them, and what the kernel tells of their connections."""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import socket
from typing import Any

import pytest

from ambient.capture import Capture, Role, direct
from ambient.capture.abi import Kind

from .. import apps, pods
from ..conftest import Enrol

PORT = 8080
_VIPS = {"v4": "10.96.0.10", "v6": "fd96::10", "v4-mapped": "10.96.0.10"}
_numbers = itertools.count(time.time_ns())  # never the same twice


@dataclass
class Pair:
    """A client pod and a server pod, seen in one address family."""

    capture: Capture
    client: pods.Pod
    server: pods.Pod
    family: str
    listeners: dict[str, dict[Role, socket]] = field(default_factory=dict)

    @property
    def at(self) -> direct.Place:
        """Where the server's application listens."""
        return (self.server.v6 if self.family == "v6" else self.server.v4), PORT

    @property
    def vip(self) -> direct.Place:
        return ip_address(_VIPS[self.family]), 80

    def spelled(self, place: direct.Place) -> tuple[str, int]:
        """As the client's application writes and reads it."""
        return f"::ffff:{place[0]}" if self.family == "v4-mapped" else str(place[0]), place[1]

    def endpoint(self, **changed: Any) -> direct.Endpoint:
        what: dict[str, Any] = {"ip": self.at[0], "port": PORT, "weight": 1, "server": self.server.netns.cookie}
        return direct.Endpoint(**(what | changed))

    def allow(self, dialled: direct.Place, *endpoints: direct.Endpoint) -> int:
        """A DIRECT verdict, by default to the server; its number."""
        return self.rule(Kind.DIRECT, dialled, *(endpoints or (self.endpoint(),)))

    def rule(self, kind: Kind, dialled: direct.Place, *endpoints: direct.Endpoint) -> int:
        number = next(_numbers)
        self.capture.direct.put(self.client.netns.cookie, dialled, direct.Verdict(number, kind, endpoints))
        return number

    def delete(self, dialled: direct.Place) -> bool:
        return self.capture.direct.delete(self.client.netns.cookie, dialled)

    def dial(self, dialled: direct.Place, how: str = "") -> Any:
        return self.client.run(apps.dial, *self.spelled(dialled), how)

    def serve(self, how: str = "") -> pods.Remote:
        server = self.server.start(apps.serve, str(self.at[0]), PORT, how)
        assert server.receive() == "listening"
        return server

    def ended(self, count: int = 1) -> list[direct.Ended]:
        """The next records, exactly so many."""
        found: list[direct.Ended] = []
        while len(found) < count:
            ready, _, _ = select.select([self.capture.direct], [], [], pods.DEADLINE)
            assert ready, f"{len(found)} of {count} records came: {found}"
            self.capture.direct.read(found.append)
        assert self.capture.direct.read(found.append) == 0, found
        assert len(found) == count, found
        return found

    def counted(self, *names: str) -> list[int]:
        counters = self.capture.counters()
        return [counters[name] for name in names]


def pair_of(capture: Capture, enrol: Enrol, node: pods.Node, family: str) -> Pair:
    made = Pair(capture, node.pod(), node.pod(), family)
    capture.direct.renew(3600)
    for name, each in (("client", made.client), ("server", made.server)):
        made.listeners[name] = dict(enrol(each))
    return made


@pytest.fixture(params=["v4", "v6", "v4-mapped"])
def pair(request: pytest.FixtureRequest, capture: Capture, enrol: Enrol, node: pods.Node) -> Pair:
    return pair_of(capture, enrol, node, request.param)


@pytest.fixture
def pair4(capture: Capture, enrol: Enrol, node: pods.Node) -> Pair:
    """Where the family makes no difference."""
    return pair_of(capture, enrol, node, "v4")


@pytest.fixture
def served(pair: Pair) -> Iterator[pods.Remote]:
    server = pair.serve()
    yield server
    server.finish()
