"""Istio's TCP metrics: totals by label set, of the connections that ended and, at a scrape, of the open ones. No I/O.

Cardinality: labels name workloads (a Deployment, not its pods), services and identities, never addresses. A set that
saw nothing for IDLE_S and has no open connection is forgotten (it starts again at 0 as after a restart, which rate()
expects); beyond SETS_MAX new ones are counted together under "overflow". What was once reported of a living set never
gets smaller, whatever the open connections' figures do meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ambient.observe import flags
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Ending, Flow, Party

IDLE_S = 6 * 3600.0
SETS_MAX = 5000
UNKNOWN = "unknown"
OVERFLOW = "overflow"
LABELS = (
    "reporter",
    *(
        f"{end}_{name}"
        for end in ("source", "destination")
        for name in (
            "workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version",
            "cluster", "region", "zone",
        )
    ),
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
)  # fmt: skip
Labels = tuple[str, ...]
_OPENED, _CLOSED, _SENT, _RECEIVED, _FAILED = range(5)
_NAMES = (
    ("istio_tcp_connections_opened", "Connections opened"),
    ("istio_tcp_connections_closed", "Connections closed; response_flags says how"),
    ("istio_tcp_sent_bytes", "Bytes of responses: from the server to the client"),
    ("istio_tcp_received_bytes", "Bytes of requests: from the client to the server"),
    ("istio_tcp_connections_failed", "Connections closed with a response flag"),
)


@dataclass(frozen=True, slots=True)
class Live:
    """Open connections of one Flow: bytes they carried so far (client to server, and back), and how many they are."""

    flow: Flow
    sent: int
    received: int
    connections: int = 1


@dataclass(slots=True)
class _Totals:
    ended: list[int] = field(default_factory=lambda: [0] * len(_NAMES))
    reported: list[int] = field(default_factory=lambda: [0] * len(_NAMES))
    touched: float = 0.0

    def report(self, live: list[int]) -> list[int]:
        """Never less than before: the figures of open connections may be older than the record of their end."""
        now = [ended + more for ended, more in zip(self.ended, live, strict=True)]
        self.reported = [max(pair) for pair in zip(self.reported, now, strict=True)]
        return self.reported


class Traffic:
    def __init__(self, *, sets_max: int = SETS_MAX, idle_s: float = IDLE_S) -> None:
        self._sets: dict[Labels, _Totals] = {}
        self._labels: PerFlow[dict[str, tuple[Labels, Labels]]] = PerFlow(lambda _: {})  # by response flag
        self._sets_max, self._idle_s = sets_max, idle_s

    def ended(self, flow: Flow, *endings: Ending, now: float) -> None:
        """One or more, of the same reason and error. `now`: any monotonic clock, in seconds."""
        first = endings[0]
        flag = flags.of(flow.verdict, flow.reason, first.reason, first.error)
        while_open, in_the_end = self._labels_of(flow, flag)
        running = self._totals(while_open, now)
        for each in endings:
            running.ended[_SENT] += each.received  # Istio counts from the server's point of view
            running.ended[_RECEIVED] += each.sent
        running.ended[_OPENED] += len(endings)
        closed = running if in_the_end is while_open else self._totals(in_the_end, now)
        closed.ended[_CLOSED] += len(endings)
        if flag != flags.NONE:
            closed.ended[_FAILED] += len(endings)

    def collect(self, live: Iterable[Live], now: float) -> Iterator[Metric]:
        """One family a metric; of every label set only the counters that ever moved."""
        moving: dict[Labels, list[int]] = {}
        open_now = {"source": 0, "destination": 0}
        for row in live:
            key, _ = self._labels_of(row.flow, flags.NONE)
            self._totals(key, now)
            figures = moving.setdefault(key if key in self._sets else _overflow(key), [0] * len(_NAMES))
            figures[_OPENED] += row.connections
            figures[_SENT] += row.received
            figures[_RECEIVED] += row.sent
            open_now[row.flow.reporter] += row.connections
        self._forget_idle(now)
        nothing = [0] * len(_NAMES)
        rows = [(key, totals.report(moving.get(key, nothing))) for key, totals in self._sets.items()]
        rows.sort(key=lambda row: row[0])
        for index, (name, text) in enumerate(_NAMES):
            family = CounterMetricFamily(name, text, labels=LABELS)
            for key, figures in rows:
                if figures[index] or (index in (_SENT, _RECEIVED) and figures[_OPENED]):
                    family.add_metric(key, figures[index])
            yield family
        gauge = GaugeMetricFamily("ambient_connections_open", "Connections open now", labels=["reporter"])
        for reporter, count in open_now.items():
            gauge.add_metric([reporter], count)
        yield gauge

    def _labels_of(self, flow: Flow, flag: str) -> tuple[Labels, Labels]:
        """While it is open, and in the end: the same object where that is the same."""
        by_flag = self._labels.of(flow)
        found = by_flag.get(flag)
        if found is None:
            in_the_end = labels(flow, flag)
            early = _while_open(flow, flag)
            found = by_flag[flag] = in_the_end if early == flag else labels(flow, early), in_the_end
        return found

    def _totals(self, key: Labels, now: float) -> _Totals:
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= self._sets_max:
                key = _overflow(key)
            found = self._sets.setdefault(key, _Totals())
        found.touched = now
        return found

    def _forget_idle(self, now: float) -> None:
        for key in [key for key, totals in self._sets.items() if now - totals.touched > self._idle_s]:
            del self._sets[key]


def _while_open(flow: Flow, flag: str) -> str:
    """The flag a connection is opened and its bytes are counted under: known before its end only for the refused."""
    return flags.NONE if flow.verdict == "allow" else flag


def labels(flow: Flow, flag: str) -> Labels:
    """The values of LABELS, in their order."""
    name, _, rest = flow.service.partition(".")
    namespace = rest.partition(".")[0]
    return (
        flow.reporter,
        *_party(flow.source),
        *_party(flow.destination),
        flow.service or UNKNOWN,
        name or UNKNOWN,
        namespace or UNKNOWN,
        "tcp",
        flag,
        flow.security,
    )


def _party(party: Party) -> Labels:
    return (
        party.owner or UNKNOWN,
        party.app or party.owner or UNKNOWN,
        party.version or ("latest" if party.owner else UNKNOWN),
        party.namespace or UNKNOWN,
        "spiffe://" + party.principal if party.principal else UNKNOWN,
        party.app or UNKNOWN,
        party.version or UNKNOWN,
        "Kubernetes" if party.owner else UNKNOWN,
        party.region or UNKNOWN,
        party.zone or UNKNOWN,
    )


def _overflow(key: Labels) -> Labels:
    return (key[0], *(OVERFLOW for _ in key[1:-3]), *key[-3:])
