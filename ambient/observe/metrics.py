"""The agent's metrics: what it counts itself, and what it asks others for at a scrape. Renders text; serves nothing.

A registry of our own: no process-wide state, nothing a library registered by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from ambient import __version__
from ambient.observe.histogram import Histogram
from ambient.observe.records import Ending, Flow
from ambient.observe.traffic import Live, Traffic

__all__ = ["Gauges", "Live", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REASONS_MAX = 200  # reasons are ours and few; this only bounds a mistake
_NOT_FAILURES = {"closed", "open", "reset_client", "reset_server", "cut", "tunnel_lost", "expired"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Where a scrape asks. Each is called on the agent's loop and must answer from memory, at once."""

    live: Callable[[], Iterable[Live]] = tuple
    verdicts: Callable[[], Mapping[str, int]] = dict  # eBPF: packets and connects by named verdict
    certificates: Callable[[], Mapping[str, datetime]] = dict  # not_after by SPIFFE ID
    uncaptured: Callable[[], Mapping[tuple[str, str], int]] = dict  # datagrams by (namespace/pod, protocol)
    pods: Callable[[], Mapping[str, int]] = dict  # pods by state: "captured", "waiting"
    ready: Callable[[], bool] = lambda: False
    records_dropped: Callable[[], int] = lambda: 0
    kernel_verdicts: Callable[[], int] = lambda: 0
    pairs_aside: Callable[[], int] = lambda: 0
    not_ended: Callable[[], int] = lambda: 0


NOTHING = Gauges()


class Metrics:
    """Counts on the agent's loop; text() may be asked for at any time."""

    def __init__(
        self,
        gauges: Gauges = NOTHING,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.gauges = gauges
        self.config_errors = 0  # of the source's newest state; while there are any, the last good one is in force
        self._clock, self._wall = clock, wall
        self._traffic = Traffic()
        self._refused: dict[str, int] = {}
        self._dial_failures: dict[str, int] = {}
        self._engine_deaths = 0
        self._handshakes = Histogram("ambient_handshake_seconds", "TLS handshakes of tunnels, both directions")
        self._dials = Histogram("ambient_dial_seconds", "Connecting to an endpoint, until it or its proxy said yes")
        self._setups = Histogram("ambient_setup_seconds", "From accept until both sides of a connection could speak")

    def ended(self, flow: Flow, *endings: Ending) -> None:
        """Exactly once per connection, the refused ones included; several at once if reason and error are the same."""
        self._traffic.ended(flow, *endings, now=self._clock())
        for each in endings:
            if each.setup_ns:
                self._setups.observe(each.setup_ns / 1e9)
        if flow.verdict == "deny":
            self.refused(flow.reason or endings[0].reason, len(endings))
        elif endings[0].reason not in _NOT_FAILURES:
            self.refused(endings[0].reason, len(endings))

    def mirrored(self, flow: Flow, *endings: Ending) -> None:
        """The other side of connections that one agent saw both sides of."""
        self._traffic.ended(flow, *endings, now=self._clock())

    def refused(self, reason: str, count: int = 1) -> None:
        """Connections or requests that were turned away. `reason`: one of our snake_case names, never a peer's text."""
        if reason not in self._refused and len(self._refused) >= REASONS_MAX:
            reason = "other"
        self._refused[reason] = self._refused.get(reason, 0) + count

    def observe_handshake(self, seconds: float) -> None:
        self._handshakes.observe(seconds)

    def observe_dial(self, seconds: float) -> None:
        self._dials.observe(seconds)

    def dial_failed(self, reason: str) -> None:
        """An endpoint could not be reached; the connection may have succeeded with another."""
        self._dial_failures[reason] = self._dial_failures.get(reason, 0) + 1

    def engine_died(self) -> None:
        """One that served: not one that was replaced, and has finished."""
        self._engine_deaths += 1

    async def text(self) -> str:
        """The exposition. Figures are gathered at once; writing thousands of them out does not hold up the loop."""
        return await asyncio.to_thread(_render, list(self._gather()))

    def _gather(self) -> Iterator[Metric]:
        ask, now = self.gauges, self._wall()
        yield from self._traffic.collect(ask.live(), self._clock())
        yield self._handshakes.family()
        yield self._dials.family()
        yield self._setups.family()
        yield _counters("ambient_connections_refused", "Connections and requests turned away", "reason", self._refused)
        yield _counters("ambient_dial_failures", "Endpoints that could not be reached", "reason", self._dial_failures)
        yield _counters("ambient_bpf_verdicts", "Verdicts of the eBPF programs", "verdict", ask.verdicts())
        expiry = GaugeMetricFamily(
            "ambient_certificate_expiry_seconds",
            "Until the certificate expires; negative: it has",
            labels=["principal"],
        )
        for principal, not_after in sorted(ask.certificates().items()):
            expiry.add_metric([principal], not_after.timestamp() - now)
        yield expiry
        datagrams = CounterMetricFamily(
            "ambient_uncaptured_datagrams", "Sent by enrolled pods outside the mesh", labels=["pod", "protocol"]
        )
        for labels, count in sorted(ask.uncaptured().items()):
            datagrams.add_metric(labels, count)
        yield datagrams
        pods = GaugeMetricFamily("ambient_pods", "Enrolled pods of this node", labels=["state"])
        for state, count in sorted(ask.pods().items()):
            pods.add_metric([state], count)
        yield pods
        yield GaugeMetricFamily(
            "ambient_config_errors",
            "Errors in the source; while there are any, its last good state holds",
            self.config_errors,
        )
        yield CounterMetricFamily(
            "ambient_engine_restarts", "Engines that died while they served, and were replaced", self._engine_deaths
        )
        yield CounterMetricFamily("ambient_records_dropped", "Access records nobody took", ask.records_dropped())
        yield GaugeMetricFamily(
            "ambient_kernel_verdicts",
            "Pods and addresses that the kernel decides about by itself",
            ask.kernel_verdicts(),
        )
        yield GaugeMetricFamily(
            "ambient_direct_pairs_aside", "Pairs of pods of one node kept from the direct path", ask.pairs_aside()
        )
        yield CounterMetricFamily(
            "ambient_direct_not_ended",
            "Connections past the engine that a change denies and that could not be ended",
            ask.not_ended(),
        )
        yield GaugeMetricFamily("ambient_ready", "1 when the agent is ready", int(ask.ready()))
        build = GaugeMetricFamily("ambient_build_info", "The agent's version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def _counters(name: str, text: str, label: str, figures: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(figures.items()):
        family.add_metric([value], count)
    return family


class _Gathered(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _render(families: list[Metric]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gathered(families))
    return generate_latest(registry).decode()
