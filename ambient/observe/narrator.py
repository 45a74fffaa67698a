"""The tracer's events in words, one line each. Pure: what an address is called is given, nothing is looked up.

The kernel sees sockets, not connections through the mesh: a captured connection is the client's socket, the mesh's
socket that the lookup gave it to, a tunnel between the pods, and on the far side the mesh dialling the app.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ambient.model.mesh import TUNNEL_PORT

Event = Mapping[str, Any]


class State(enum.IntEnum):
    """TCP states as the kernel numbers them (include/net/tcp_states.h); the others say nothing new to a reader."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    CLOSE = 7
    CLOSE_WAIT = 8
    LISTEN = 10


# Why the kernel sends a reset (include/net/rstreason.h), where its name alone would not help.
RESETS = {
    "NO_SOCKET": "nobody listens there",
    "TCP_ABORT_ON_DATA": "closed with data unread or still coming",
    "TCP_ABORT_ON_CLOSE": "closed with data unread",
    "TCP_ABORT_ON_LINGER": "closed with SO_LINGER 0",
    "TCP_DISCONNECT_WITH_DATA": "disconnected with data unread",
    "TCP_STATE": "the socket was closed under it, by its owner or an administrator",
    "TCP_KEEPALIVE_TIMEOUT": "the other end did not answer keepalive probes",
    "NOT_SPECIFIED": "",
}
ERRNOS = {1: "not permitted: a cgroup hook refused it, such as Ambient's", 13: "permission denied by a security module"}


@dataclass(frozen=True, slots=True)
class Names:
    """What addresses and cgroups are called."""

    pods: Mapping[str, str] = field(default_factory=dict)  # "namespace/pod" by address
    services: Mapping[str, str] = field(default_factory=dict)  # "name.namespace" by VIP
    cgroups: Mapping[int, str] = field(default_factory=dict)  # "namespace/pod" by cgroup id
    resets: Mapping[str, str] = field(default_factory=dict)  # this kernel's words for its reset reasons, by number

    def at(self, address: str, port: int) -> str:
        name = self.pods.get(address) or self.services.get(address)
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return f"{name} ({where})" if name else where


def tell(names: Names, event: Event) -> str:
    """The line for an event; empty for one that says nothing new."""
    match event["event"]:
        case "state":
            return _state(names, event)
        case "reset_sent":
            word = names.resets.get(str(event["more"]), "")
            why = RESETS.get(word, word.lower().replace("_", " "))
            return f"{_source(names, event)} sends a reset to {_destination(names, event)}{': ' + why if why else ''}"
        case "reset_seen":
            return f"{_source(names, event)} got a reset from {_destination(names, event)}"
        case "retransmit":
            what = "its SYN" if event["detail"] == State.SYN_SENT else "a segment"
            return f"{_source(names, event)} sends {what} to {_destination(names, event)} again: no answer in time"
        case "connect_refused":
            pod = names.cgroups.get(event["cgroup"])
            if pod is None:
                return ""
            why = ERRNOS.get(event["detail"], f"errno {event['detail']}")
            return f"{pod}{_process(event)} may not connect to {_destination(names, event)}: {why}"
        case "lost":
            return f"{event['more']} events were lost: more came than could be written"
    return ""


def _state(names: Names, event: Event) -> str:
    here, there = _source(names, event), _destination(names, event)
    after = _ms(event["age_ns"])
    inside = event["source"] == event["destination"]
    match event["detail"], event["more"]:
        case State.CLOSE, State.SYN_SENT:
            who = names.pods.get(event["source"], here)
            if inside:
                return f"in {who}{_process(event)} dials the app: {there}"
            if event["destination_port"] == TUNNEL_PORT:
                return f"{who}{_process(event)} opens a tunnel to {there}"
            return f"{who}{_process(event)} connects to {there}"
        case State.SYN_SENT, State.ESTABLISHED:
            return f"{here} is connected to {there}: handshake took {after}"
        case State.SYN_SENT, State.CLOSE:
            return f"{here} could not connect to {there}: gave up after {after}"
        case State.SYN_RECV, State.ESTABLISHED:
            return _accepted(names, event, here, there, inside=inside)
        case State.ESTABLISHED, State.FIN_WAIT1:
            return f"{here} has finished sending to {there}"
        case State.ESTABLISHED, State.CLOSE_WAIT:
            return f"{here} has got all that {there} sends"
        case State.CLOSE, State.LISTEN:
            return f"{here} listens"
        case State.LISTEN, State.CLOSE:
            return f"{here} stops listening"
        case _, State.CLOSE:
            return f"{here} and {there} are done, {after} after they connected"
    return ""


def _accepted(names: Names, event: Event, here: str, there: str, *, inside: bool) -> str:
    if event["source"] not in names.pods:
        return f"lookup gave {there}'s connection to {here} to the mesh"
    if event["source_port"] == TUNNEL_PORT:
        return f"{here} accepts a tunnel from {there}"
    return f"{here} accepts {'the connection the mesh brings' if inside else there}"


def _source(names: Names, event: Event) -> str:
    return names.at(event["source"], event["source_port"])


def _destination(names: Names, event: Event) -> str:
    return names.at(event["destination"], event["destination_port"])


def _process(event: Event) -> str:
    return f" [{event['comm']} {event['pid']}]" if event["pid"] else ""


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns < 1e9 else f"{ns / 1e9:.1f} s"
