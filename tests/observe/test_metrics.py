"""Istio's counters and ours, read back from the text a scrape gets."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from ambient.observe.metrics import Gauges, Live, Metrics
from ambient.observe.records import Ending, Flow, Party
from ambient.observe.traffic import LABELS, Traffic

FLOW = Flow(
    reporter="source",
    source=Party(namespace="shop", workload="client-x", owner="client", principal="cluster.local/ns/shop/sa/client"),
    destination=Party(namespace="shop", workload="web-1", owner="web", app="web", version="v2", zone="eu-a"),
    service="web.shop.svc.cluster.local",
    path="tunnel",
    security="mutual_tls",
)
DENIED = replace(FLOW, verdict="deny", reason="denied_by_policy", rule="AuthorizationPolicy shop/web rule 0")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def an_ending(sent: int = 0, received: int = 0, reason: str = "closed", setup_ns: int = 1_000_000) -> Ending:
    return Ending(connection="1", sent=sent, received=received, reason=reason, setup_ns=setup_ns)


def scrape(metrics: Metrics) -> Samples:
    text = asyncio.run(metrics.text())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """The sum over all samples of that name that have these labels."""
    return sum(number for (n, have), number in found.items() if n == name and labels.items() <= dict(have).items())


def test_a_connection_counts_once_with_istios_names_labels_and_point_of_view() -> None:
    metrics = Metrics()
    metrics.ended(FLOW, an_ending(sent=10, received=2000))
    found = scrape(metrics)
    (labels,) = [dict(have) for name, have in found if name == "istio_tcp_connections_opened_total"]
    assert tuple(sorted(LABELS)) == tuple(sorted(labels))
    assert labels["source_principal"] == "spiffe://cluster.local/ns/shop/sa/client"
    assert (labels["source_workload"], labels["destination_workload"]) == ("client", "web")
    assert (labels["destination_service_name"], labels["destination_service_namespace"]) == ("web", "shop")
    assert (labels["destination_canonical_revision"], labels["source_canonical_revision"]) == ("v2", "latest")
    assert (labels["source_zone"], labels["destination_zone"]) == ("unknown", "eu-a")
    assert (labels["request_protocol"], labels["response_flags"]) == ("tcp", "-")
    assert labels["connection_security_policy"] == "mutual_tls"
    assert value(found, "istio_tcp_connections_closed_total") == 1
    assert value(found, "istio_tcp_sent_bytes_total") == 2000
    assert value(found, "istio_tcp_received_bytes_total") == 10


def test_a_refused_connection_counts_under_its_flag_and_its_reason() -> None:
    metrics = Metrics()
    metrics.ended(DENIED, an_ending(reason="refused", setup_ns=0))
    found = scrape(metrics)
    for name in ("opened", "closed", "failed"):
        assert value(found, f"istio_tcp_connections_{name}_total", response_flags="DENY") == 1
    assert value(found, "ambient_connections_refused_total", reason="denied_by_policy") == 1
    assert value(found, "ambient_setup_seconds_count") == 0


def test_a_failed_connection_is_opened_without_and_closed_with_its_flag() -> None:
    metrics = Metrics()
    metrics.ended(FLOW, an_ending(reason="dial", setup_ns=0))
    found = scrape(metrics)
    assert value(found, "istio_tcp_connections_opened_total", response_flags="-") == 1
    assert value(found, "istio_tcp_connections_closed_total", response_flags="CONNECT") == 1
    assert value(found, "ambient_connections_refused_total", reason="dial") == 1


def test_open_connections_are_in_the_totals() -> None:
    metrics = Metrics(Gauges(live=lambda: [Live(FLOW, 5, 7), Live(FLOW, 5, 7)]))
    metrics.ended(FLOW, an_ending(sent=10, received=20))
    found = scrape(metrics)
    assert value(found, "istio_tcp_connections_opened_total") == 3
    assert value(found, "istio_tcp_connections_closed_total") == 1
    assert value(found, "istio_tcp_received_bytes_total") == 20
    assert value(found, "istio_tcp_sent_bytes_total") == 34
    assert value(found, "ambient_connections_open", reporter="source") == 2


def test_a_total_never_gets_smaller_when_an_open_connection_becomes_a_record() -> None:
    live = [Live(FLOW, 100, 0)]
    metrics = Metrics(Gauges(live=lambda: live))
    seen = [value(scrape(metrics), "istio_tcp_received_bytes_total")]
    metrics.ended(FLOW, an_ending(sent=150))  # while the engine's figures are still the old ones
    seen.append(value(scrape(metrics), "istio_tcp_received_bytes_total"))
    live.clear()
    seen.append(value(scrape(metrics), "istio_tcp_received_bytes_total"))
    assert seen == sorted(seen)
    metrics.ended(FLOW, an_ending(sent=1000))
    assert value(scrape(metrics), "istio_tcp_received_bytes_total") == 1150


def test_pods_of_one_deployment_share_a_label_set() -> None:
    metrics = Metrics()
    for number in range(50):
        source = replace(FLOW.source, workload=f"client-{number}", address=f"10.0.0.{number}")
        metrics.ended(replace(FLOW, source=source), an_ending())
    assert [n for n, _ in scrape(metrics)].count("istio_tcp_connections_opened_total") == 1


def an_owner(name: str) -> Flow:
    return replace(FLOW, source=replace(FLOW.source, owner=name))


def figures(traffic: Traffic, now: float) -> dict[str, float]:
    """Opened connections by source workload."""
    return {
        sample.labels["source_workload"]: sample.value
        for family in traffic.collect((), now)
        for sample in family.samples
        if sample.name == "istio_tcp_connections_opened_total"
    }


def test_beyond_the_bound_new_label_sets_are_counted_together() -> None:
    traffic = Traffic(sets_max=3)
    for number in range(10):
        traffic.ended(an_owner(f"job-{number}"), an_ending(), now=0.0)
    traffic.ended(an_owner("job-0"), an_ending(), now=0.0)
    found = figures(traffic, 0.0)
    assert found == {"job-0": 2, "job-1": 1, "job-2": 1, "overflow": 7}


def test_an_idle_label_set_is_forgotten_and_an_open_one_is_not() -> None:
    traffic = Traffic(idle_s=60)
    for name in ("idle", "busy", "open"):
        traffic.ended(an_owner(name), an_ending(), now=0.0)
    traffic.ended(an_owner("busy"), an_ending(), now=50.0)
    list(traffic.collect([Live(an_owner("open"), 1, 1)], 60.0))
    assert figures(traffic, 100.0) == {"busy": 2, "open": 2}


def test_what_others_know_is_asked_at_the_scrape() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    gauges = Gauges(
        verdicts=lambda: {"marked": 3, "device_bound": 1},
        certificates=lambda: {"spiffe://cluster.local/ns/shop/sa/web": now + datetime.timedelta(hours=1)},
        uncaptured=lambda: {("shop/web-1", "udp"): 9},
        pods=lambda: {"captured": 2},
        ready=lambda: True,
        records_dropped=lambda: 4,
    )
    found = scrape(Metrics(gauges, wall=now.timestamp))
    assert value(found, "ambient_bpf_verdicts_total", verdict="marked") == 3
    assert value(found, "ambient_certificate_expiry_seconds") == 3600
    assert value(found, "ambient_uncaptured_datagrams_total", pod="shop/web-1", protocol="udp") == 9
    assert value(found, "ambient_pods", state="captured") == 2
    assert value(found, "ambient_ready") == 1
    assert value(found, "ambient_records_dropped_total") == 4


def test_what_the_agent_counts_itself_is_there_from_the_start_and_moves() -> None:
    metrics = Metrics()
    found = scrape(metrics)
    assert value(found, "ambient_config_errors") == 0
    assert value(found, "ambient_engine_restarts_total") == 0
    assert ("ambient_engine_restarts_total", ()) in found
    assert value(found, "ambient_build_info") == 1
    metrics.config_errors = 2
    metrics.engine_died()
    metrics.dial_failed("dial")
    found = scrape(metrics)
    assert value(found, "ambient_config_errors") == 2
    assert value(found, "ambient_engine_restarts_total") == 1
    assert value(found, "ambient_dial_failures_total", reason="dial") == 1


def test_histograms_are_cumulative_and_keep_their_sum() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.003, 0.003, 99.0):
        metrics.observe_handshake(seconds)
    found = scrape(metrics)
    assert value(found, "ambient_handshake_seconds_bucket", le="0.0005") == 1
    assert value(found, "ambient_handshake_seconds_bucket", le="0.005") == 3
    assert value(found, "ambient_handshake_seconds_bucket", le="+Inf") == 4
    assert value(found, "ambient_handshake_seconds_count") == 4
    assert abs(value(found, "ambient_handshake_seconds_sum") - 99.0064) < 1e-9


def test_a_mistake_in_reasons_cannot_grow_the_metrics_without_end() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.refused(f"reason_{number}")
    assert [n for n, _ in scrape(metrics)].count("ambient_connections_refused_total") == 201
