"""The access record: what is known of a connection when it is judged (Flow) and when it is over (Ending). No I/O here.

A Flow travels to the engine and back as a label of a few hundred bytes (see label.py), so that an agent that takes over
can write the records of connections that its predecessor let in.
"""

from __future__ import annotations

import datetime
import functools
import json
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ambient.model.mesh import Identity, Workload
from ambient.observe import flags, label

Reporter = Literal["source", "destination"]
Verdict = Literal["allow", "deny"]
Path = Literal["tunnel", "plaintext", "direct", "none"]  # none: refused before it went anywhere
Security = Literal["mutual_tls", "unknown"]

TEXT_MAX = 512  # characters of free text in a record: a line stays far below PIPE_BUF, which makes its write atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One end of a connection, as the reporter knows it. Empty: unknown."""

    workload: str = ""  # the pod's name
    namespace: str = ""
    service_account: str = ""
    principal: str = ""  # proven identity: only what a certificate or the kernel vouched for
    address: str = ""  # without a port
    owner: str = ""  # what metrics call the workload: the Deployment's name, or the pod's
    app: str = ""
    version: str = ""
    region: str = ""
    zone: str = ""

    @classmethod
    def of(cls, workload: Workload | None, identity: Identity | None = None, address: str = "") -> Party:
        """`identity`: the proven one, not what the workload's manifest says. `workload` None: no more is known."""
        principal = identity.principal if identity else ""
        if workload is None:
            namespace, account = (identity.namespace, identity.service_account) if identity else ("", "")
            return cls(namespace=namespace, service_account=account, principal=principal, address=address)
        labels = workload.labels
        return cls(
            workload=workload.name,
            namespace=workload.namespace,
            service_account=workload.service_account,
            principal=principal,
            address=address or (str(workload.addresses[0]) if workload.addresses else ""),
            owner=workload.owner or workload.name,
            app=labels.get("service.istio.io/canonical-name")
            or labels.get("app.kubernetes.io/name")
            or labels.get("app", ""),
            version=labels.get("service.istio.io/canonical-revision")
            or labels.get("app.kubernetes.io/version")
            or labels.get("version", ""),
            region=workload.locality.region,
            zone=workload.locality.zone,
        )


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Flow:
    """What was known and decided when a connection was judged; the same for all connections under one answer."""

    reporter: Reporter
    source: Party = field(default_factory=Party)
    destination: Party = field(default_factory=Party)
    service: str = ""  # host name of the service that was dialled
    verdict: Verdict = "allow"
    rule: str = ""  # what gave the verdict, as policy.decide() names it
    reason: str = ""  # why not, as policy.decide() and route.plan() name it; empty when allowed
    path: Path = "plaintext"
    security: Security = "unknown"

    def to_label(self) -> bytes:
        """At most label.MAX bytes; what had to be shortened ends in `~`."""
        return label.encode(self)

    @classmethod
    def from_label(cls, data: bytes) -> Flow:
        """Raises ValueError for anything that to_label() did not write."""
        return label.decode(data)


class Ending(NamedTuple):
    """What is known when a connection is over. Addresses are ip:port, IPv6 in brackets; empty: unknown."""

    connection: str  # unique per agent and engine
    source: str = ""
    destination: str = ""  # what the client dialled
    dialled: str = ""  # where it was carried to
    started_ns: int = 0  # CLOCK_REALTIME
    duration_ns: int = 0
    setup_ns: int = 0  # from accept until both sides could speak; 0: that never came
    sent: int = 0  # bytes from the client to the server
    received: int = 0
    reason: str = "closed"  # the engine's reason, in lower case
    error: int = 0  # errno or HTTP status, where the reason has one
    text: str = ""
    trace: str = ""  # W3C trace id, hexadecimal


class Open(NamedTuple):
    """A connection that is open."""

    flow: Flow
    ending: Ending  # what it would be now
    counted: bool = True  # its bytes so far are known


def record(flow: Flow, ending: Ending) -> dict[str, object]:
    """The access record. Names are the metrics' label names where there is one; docs/observability.md lists them."""
    return {**_begin(ending), **_flow(flow), **_end(flow, ending)}


class Form:
    """The record of one flow with that flow's part written already: every connection adds its own."""

    def __init__(self, flow: Flow) -> None:
        """Does not keep the flow: see PerFlow."""
        self._written = _written(_flow(flow))

    def fill(self, flow: Flow, ending: Ending) -> bytes:
        """record() as one line of JSON; the flow is that of the beginning.

        Written out: an encoder costs three times as much, once a connection. What the engine's and the kernel's numbers
        were made into needs no escaping.
        """
        (
            connection, source, destination, dialled, started_ns, duration_ns, setup_ns, sent, received, reason, error,
            text, trace,
        ) = ending  # fmt: skip
        source = f'"{source}"' if source else _JSON.encode(flow.source.address)
        destination = f'"{destination}"' if destination else _JSON.encode(flow.destination.address)
        text = _JSON.encode(text[:TEXT_MAX]) if text else '""'
        setup = f"{setup_ns / 1e6:.3f}" if setup_ns else "null"
        return (
            f'{{"time":"{rfc3339(started_ns + duration_ns)}","start":"{rfc3339(started_ns)}","type":"connection"'
            f',"connection":"{connection}",{self._written},"end":"{reason}","error":{error},"text":{text}'
            f',"response_flags":"{flags.of(flow.verdict, flow.reason, reason, error)}","source_address":{source}'
            f',"destination_address":{destination},"dialled_address":"{dialled}","bytes_sent":{sent}'
            f',"bytes_received":{received},"duration_ms":{duration_ns / 1e6:.3f},"setup_ms":{setup}'
            f',"trace_id":"{trace}"}}\n'
        ).encode()


def _written(fields: dict[str, object]) -> str:
    """JSON without its braces."""
    return _JSON.encode(fields)[1:-1]


_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _begin(ending: Ending) -> dict[str, str]:
    return {
        "time": rfc3339(ending.started_ns + ending.duration_ns),
        "start": rfc3339(ending.started_ns),
        "type": "connection",
        "connection": ending.connection,
    }


def _flow(flow: Flow) -> dict[str, object]:
    return {
        "reporter": flow.reporter,
        "verdict": flow.verdict,
        "rule": flow.rule,
        "reason": flow.reason,
        "path": flow.path,
        "connection_security_policy": flow.security,
        **_party("source", flow.source),
        "destination_service": flow.service,
        **_party("destination", flow.destination),
    }


def _end(flow: Flow, ending: Ending) -> dict[str, object]:
    return {
        "end": ending.reason,
        "error": ending.error,
        "text": ending.text[:TEXT_MAX],
        "response_flags": flags.of(flow.verdict, flow.reason, ending.reason, ending.error),
        "source_address": ending.source or flow.source.address,
        "destination_address": ending.destination or flow.destination.address,
        "dialled_address": ending.dialled,
        "bytes_sent": ending.sent,
        "bytes_received": ending.received,
        "duration_ms": _ms(ending.duration_ns),
        "setup_ms": _ms(ending.setup_ns) if ending.setup_ns else None,
        "trace_id": ending.trace,
    }


def _party(end: str, party: Party) -> dict[str, object]:
    return {
        f"{end}_pod": party.workload,
        f"{end}_workload": party.owner,
        f"{end}_workload_namespace": party.namespace,
        f"{end}_service_account": party.service_account,
        f"{end}_principal": "spiffe://" + party.principal if party.principal else "",
    }


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)


def rfc3339(ns: int) -> str:
    return _to_the_millisecond(ns // 1_000_000)


@functools.lru_cache(256)  # records come in bursts of the same moments
def _to_the_millisecond(ms: int) -> str:
    return f"{_to_the_second(ms // 1000)}.{ms % 1000:03d}Z"


@functools.lru_cache(64)
def _to_the_second(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}"
