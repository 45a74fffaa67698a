"""A replica's readiness, liveness and metrics as pages. Reads the replica; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from ambient import __version__
from ambient.observe.http import Page
from ambient.observe.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from ambient.control.root import Control


class Pages:
    def __init__(self, control: Control) -> None:
        self._control = control
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Asked(control))

    async def ready(self) -> Page:
        waits = self._control.not_ready
        if waits:
            text = "not ready, waiting for:\n" + "".join(f"  {each}\n" for each in waits)
            return Page(text, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Page("ready\n")

    async def live(self) -> Page:
        """The event loop answers: that is all there is to know."""
        return Page("alive\n")

    async def metrics(self) -> Page:
        return Page(generate_latest(self._registry).decode(), content_type=CONTENT_TYPE)


class _Asked(Collector):
    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterator[Metric]:
        control, counts = self._control, self._control.discovery.counts
        yield GaugeMetricFamily("ambient_control_ready", "1 when agents are served", int(not control.not_ready))
        yield GaugeMetricFamily("ambient_control_leader", "1 in the replica that writes", int(control.lease.held))
        yield GaugeMetricFamily("ambient_control_agents", "Agents connected now", counts.connected)
        yield CounterMetricFamily("ambient_control_pushes", "Responses sent to agents", counts.pushes)
        yield CounterMetricFamily("ambient_control_pushed_bytes", "In these responses", counts.pushed_bytes)
        yield CounterMetricFamily("ambient_control_nacks", "Responses an agent refused a part of", counts.nacks)
        if control.ca.ends is not None:
            text = "When the certificate that signs ends, in seconds of the Unix epoch"
            yield GaugeMetricFamily("ambient_control_ca_ends_seconds", text, control.ca.ends.timestamp())
        certificates = CounterMetricFamily(
            "ambient_control_certificates", "Requests for certificates, by what became of them", labels=["outcome"]
        )
        for outcome, count in sorted(control.certificates.counts.items()):
            certificates.add_metric([outcome], count)
        yield certificates
        refused = CounterMetricFamily("ambient_control_callers_refused", "Callers that are nobody", labels=["reason"])
        for reason, count in sorted(control.callers.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        yield CounterMetricFamily("ambient_control_events_dropped", "Events not written", control.events.dropped)
        objects = GaugeMetricFamily("ambient_control_objects", "What the World holds", labels=["kind"])
        world = control.world
        for kind, table in (
            ("workload", world.workloads),
            ("service", world.services),
            ("policy", world.policies),
            ("namespace", world.namespaces),
            ("node", world.nodes),
        ):
            objects.add_metric([kind], len(table))
        yield objects
        rejected = sum(1 for outcome in control.outcomes.all.values() if outcome.problems)
        yield GaugeMetricFamily("ambient_control_rejected", "Objects that cannot be read as they are", rejected)
        yield GaugeMetricFamily(
            "ambient_control_source_errors", "While there are any, the last World holds", len(control.source_errors)
        )
        build = GaugeMetricFamily("ambient_build_info", "The control plane's version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
