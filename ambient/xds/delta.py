"""One client's delta ADS stream as a state machine: requests and news in, responses out. No I/O, no clock.

Owns nonces, subscriptions and what is still to be said; what there is to say is a Snapshot's. Source: the incremental
xDS protocol in Envoy's documentation. Of each type a client is sent everything ("*") or what it named.

- What changed is remembered by name only. Once the client has acknowledged everything, it is sent the newest state of
  the names that are due: a slow client costs a set of names, and never sees what came and went meanwhile.
- One response of each type may be under way. For a client that knows the field `more` large answers are cut into
  pieces, and the piece without it completes a state: all that the Snapshot of that moment holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ambient.xds import names, wording
from ambient.xds.proto import discovery_pb2 as pb

PIECE_RESOURCES = 200  # of one response: what a client decodes in some 20 ms, during which it does nothing else
PIECE_BYTES = 256 << 10
TYPES_MAX = 16  # that one stream may ask for: Envoy, the greediest client, knows a dozen
WILDCARD = "*"


class State(wording.State, Protocol):
    """What a Snapshot tells a stream."""

    def keys(self, type_url: str, name: str) -> Iterator[str]:
        """The names and aliases under which a client may have asked for the resource."""

    def lookup(self, type_url: str, key: str) -> Iterator[str]:
        """The resources that a name or alias stands for; perhaps some that are not there."""


class BadRequest(Exception):
    """The client broke the protocol; the stream ends, and the text tells the client why."""


@dataclass(frozen=True, slots=True)
class Response:
    type_url: str
    nonce: str
    body: bytes  # a DeltaDiscoveryResponse


@dataclass(slots=True)
class Subscription:
    """What one client wants of one type."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    # Resources whose newest state is to be sent, the last one first: a dict that is emptied from its front is searched
    # from there each time, past everything that was in it.
    due: dict[str, None] = field(default_factory=dict)
    owed: bool = True  # an answer, even one that says nothing: it tells that there is nothing
    nonce: str = ""  # of the response that is under way


class Stream:
    def __init__(self, state: State, words: wording.Wording) -> None:
        """words: shared by all streams of a server."""
        self.node = ""  # the client's id, as it says
        self._state = state
        self._words = words
        self._pieces = False  # whether the client knows `more`
        self._subscriptions: dict[str, Subscription] = {}
        self._order: list[str] = []  # of its types
        self._nonces = itertools.count(1)

    def receive(self, request: pb.DeltaDiscoveryRequest) -> str:
        """Returns what the client says was wrong with a response, mostly "". Raises BadRequest."""
        if request.HasField("node"):
            self.node = request.node.id
            self._pieces = names.MORE in request.node.client_features
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            self._subscribe(request)
            return ""
        self._change(subscription, request)
        if not request.response_nonce or request.response_nonce != subscription.nonce:
            return ""  # about nothing, or about a response from before the stream was made
        subscription.nonce = ""
        if not request.HasField("error_detail"):
            return ""
        return request.error_detail.message or f"error {request.error_detail.code}, without a word"

    def publish(self, state: State, changed: Mapping[str, Iterable[str]]) -> None:
        """Another state; changed: names by type."""
        before, self._state = self._state, state
        for type_url, found in changed.items():
            if subscription := self._subscriptions.get(type_url):
                wanted = found if subscription.wildcard else self._wanted(type_url, subscription, before, found)
                subscription.due.update(dict.fromkeys(wanted))

    @property
    def ready(self) -> bool:
        """Whether there is something to send now: not as long as a response is under way."""
        open_ = False
        for subscription in self._subscriptions.values():
            if subscription.nonce:
                return False
            open_ = open_ or subscription.owed or bool(subscription.due)
        return open_

    def responses(self) -> list[Response]:
        """What to send now, if anything is."""
        if not self.ready:
            return []
        open_ = [(url, sub) for url in self._order if (sub := self._subscriptions[url]).due or sub.owed]
        pieces = [(url, sub, self._piece(url, sub)) for url, sub in open_]
        unfinished = any(sub.due for _, sub in open_)
        found = []
        for index, (url, sub, taken) in enumerate(pieces, start=1):
            sub.owed, sub.nonce = False, f"{next(self._nonces):x}"
            more = self._pieces and (unfinished or index < len(pieces))
            body = self._words.response(self._state, url, taken, sub.nonce, more=more)
            found.append(Response(url, sub.nonce, body))
        return found

    def _subscribe(self, request: pb.DeltaDiscoveryRequest) -> None:
        """A type's first request: of what the client still holds, only the differences are due."""
        if len(self._subscriptions) == TYPES_MAX:
            raise BadRequest(f"{request.type_url} is one type more than the {TYPES_MAX} that a stream may ask for")
        subscription = self._subscriptions[request.type_url] = Subscription()
        self._order = [url for url in dict.fromkeys([*names.TYPES, *self._subscriptions]) if url in self._subscriptions]
        if not request.resource_names_subscribe:
            self._want_all(request.type_url, subscription)
        self._change(subscription, request)
        table = self._state.table(request.type_url)
        for name, version in request.initial_resource_versions.items():
            resource = table.get(name)
            if resource is None:
                subscription.due[name] = None
            elif resource.version == version:
                subscription.due.pop(name, None)

    def _change(self, subscription: Subscription, request: pb.DeltaDiscoveryRequest) -> None:
        """What is asked for is due, even if it was before: the client may have dropped it."""
        for name in request.resource_names_subscribe:
            subscription.owed = True
            if name == WILDCARD:
                self._want_all(request.type_url, subscription)
                continue
            subscription.names.add(name)
            meant = [*self._state.lookup(request.type_url, name)]
            subscription.due.update(dict.fromkeys(meant or [name]))
        for name in request.resource_names_unsubscribe:
            if name == WILDCARD:
                subscription.wildcard = False
            subscription.names.discard(name)
        if request.resource_names_unsubscribe and not subscription.wildcard:
            wanted = self._wanted(request.type_url, subscription, self._state, subscription.due)
            subscription.due = dict.fromkeys(wanted)

    def _want_all(self, type_url: str, subscription: Subscription) -> None:
        if not subscription.wildcard:
            subscription.wildcard = True
            subscription.due.update(dict.fromkeys(self._state.table(type_url)))

    def _wanted(self, type_url: str, subscription: Subscription, before: State, found: Iterable[str]) -> Iterator[str]:
        """Those that the client asked for, by whatever name they had or have, and with a Service what is behind it."""
        for name in found:
            keys = {*before.keys(type_url, name), *self._state.keys(type_url, name)} & subscription.names
            if keys:
                yield name
            for key in keys:
                if name in (meant := [*self._state.lookup(type_url, key)])[:1]:
                    yield from meant[1:]

    def _piece(self, type_url: str, subscription: Subscription) -> tuple[str, ...]:
        """What fits into one response, taken off what is due: names of resources, and of what is gone."""
        table, due = self._state.table(type_url), subscription.due
        taken: list[str] = []
        size = 0
        while due:
            name, _ = due.popitem()
            resource = table.get(name)
            size += len(resource.element) if resource else len(name)
            if self._pieces and taken and (size > PIECE_BYTES or len(taken) == PIECE_RESOURCES):
                due[name] = None
                break
            taken.append(name)
        else:
            due.clear()  # gives back the memory of all that ever was in it
        return tuple(taken)
