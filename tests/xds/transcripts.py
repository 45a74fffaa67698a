"""A client of one delta ADS stream: a test says when it acknowledges and reads what it was told, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ambient.xds import names
from ambient.xds.delta import Stream
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import Resource
from ambient.xds.wording import Wording

from . import wire

THING = "type/thing"  # of no type that the product knows


@dataclass(frozen=True)
class Things:
    """A state out of names and versions, without aliases."""

    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    revision: str = "r"

    def table(self, type_url: str) -> Mapping[str, Resource]:
        found = self.tables.get(type_url, {})
        return {name: Resource(version, element(name, version)) for name, version in found.items()}

    def keys(self, _: str, name: str) -> Iterator[str]:
        yield name

    def lookup(self, _: str, key: str) -> Iterator[str]:
        yield key


def element(name: str, version: str) -> bytes:
    return wire.encode({2: {3: name, 1: version}})


def things(**versions: str) -> Things:
    return Things({THING: versions})


@dataclass
class Said:
    """A response, as a line of a transcript."""

    type_url: str
    resources: dict[str, str]
    removed: list[str]
    more: bool
    nonce: str

    @property
    def line(self) -> tuple[dict[str, str], list[str]]:
        return self.resources, self.removed


class Client:
    """Talks to a stream, remembers what it holds, and acknowledges only when told to."""

    def __init__(self, state: Any, *, pieces: bool = False) -> None:
        self.stream = Stream(state, Wording("ambient/test"))
        self.state = state
        self.holds: dict[str, dict[str, str]] = {}
        self.node = pb.Node(id="n", client_features=[names.MORE] if pieces else [])
        self.unanswered: list[Said] = []

    def ask(self, *subscribe: str, of: str = THING, drop: Any = (), have: Any = None, **more: Any) -> list[Said]:
        request = pb.DeltaDiscoveryRequest(
            node=self.node,
            type_url=of,
            resource_names_subscribe=subscribe,
            resource_names_unsubscribe=drop,
            initial_resource_versions=have or {},
            **more,
        )
        self.problem = self.stream.receive(request)
        return self.hear()

    def hear(self) -> list[Said]:
        found = []
        for response in self.stream.responses():
            message = pb.DeltaDiscoveryResponse.FromString(response.body)
            assert (message.nonce, message.type_url) == (response.nonce, response.type_url)
            resources = {each.name: each.version for each in message.resources}
            here = self.holds.setdefault(message.type_url, {})
            here.update(resources)
            for name in message.removed_resources:
                here.pop(name, None)
            found.append(Said(message.type_url, resources, [*message.removed_resources], message.more, message.nonce))
        self.unanswered += found
        return found

    def ack(self, *, error: str = "") -> list[Said]:
        """Answer all that was said. Returns what is said next."""
        for said in self.unanswered:
            request = pb.DeltaDiscoveryRequest(type_url=said.type_url, response_nonce=said.nonce)
            if error:
                request.error_detail.message = error
            self.problem = self.stream.receive(request)
        self.unanswered = []
        return self.hear()

    def news(self, state: Things) -> list[Said]:
        changed = {
            url: [
                name
                for name in {**self.state.tables.get(url, {}), **state.tables.get(url, {})}
                if self.state.tables.get(url, {}).get(name) != state.tables.get(url, {}).get(name)
            ]
            for url in {**self.state.tables, **state.tables}
        }
        self.state = state
        self.stream.publish(state, changed)
        return self.hear()


def lines(said: list[Said]) -> list[tuple[dict[str, str], list[str]]]:
    return [each.line for each in said]
