"""Who counts a connection, and how often it is written down."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from ambient.agent.telemetry import Telemetry
from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.paths import Paths
from ambient.observe.records import Ending, Flow, Party
from ambient.observe.records import Path as Way

CLIENT = Party(workload="near", namespace="front", owner="near", principal="cluster.local/ns/front/sa/near")
SERVER = Party(workload="web", namespace="shop", owner="web", principal="cluster.local/ns/shop/sa/web")


def a_flow(path: Way, reporter: str = "destination") -> Flow:
    return Flow(reporter=reporter, source=CLIENT, destination=SERVER, path=path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flow", "counted"),
    [
        (a_flow("direct"), {"destination": 1, "source": 1}),
        (a_flow("plaintext", "source"), {"source": 1}),
    ],
    ids=["between two pods of the node", "left alone"],
)
def test_one_record_and_both_sides_count_if_both_are_here(flow: Flow, counted: dict[str, int], tmp_path: Path) -> None:
    place = tmp_path / "journal"
    out = os.open(place, os.O_CREAT | os.O_WRONLY)
    metrics, paths = Metrics(), Paths()
    telemetry = Telemetry(Journal(out), metrics, paths.ended)
    telemetry.ended_directly(flow, Ending("direct-1", sent=3, received=5))
    telemetry.flush()
    os.close(out)
    (row,) = map(json.loads, place.read_text().splitlines())
    assert (row["reporter"], row["bytes_sent"]) == (flow.reporter, 3)
    text = asyncio.run(metrics.text())
    for reporter in ("source", "destination"):
        lines = [each for each in text.splitlines() if each.startswith("istio_tcp_connections_opened_total{")]
        found = sum(float(each.rpartition(" ")[2]) for each in lines if f'reporter="{reporter}"' in each)
        assert found == counted.get(reporter, 0)
    ways = [row["path"] for space in ("front", "shop") for row in paths.of(space, telemetry.both(flow))]
    assert ways == [flow.path] * len(counted)


def test_those_that_ended_alike_are_told_at_once_and_counted_each(tmp_path: Path) -> None:
    flow = a_flow("direct")
    endings = [Ending(f"direct-{port}", sent=port, received=10, setup_ns=1000) for port in (1, 2, 3)]
    texts, rows, ways = [], [], []
    for together in (True, False):
        place = tmp_path / f"journal-{together}"
        out = os.open(place, os.O_CREAT | os.O_WRONLY)
        metrics, paths = Metrics(clock=lambda: 0.0, wall=lambda: 0.0), Paths()
        telemetry = Telemetry(Journal(out), metrics, paths.ended)
        for some in [endings] if together else [[each] for each in endings]:
            telemetry.ended_directly(flow, *some)
        telemetry.flush()
        os.close(out)
        rows.append(place.read_text().splitlines())
        texts.append(asyncio.run(metrics.text()))
        ways.append([paths.of(space, ()) for space in ("front", "shop")])
    assert rows[0] == rows[1]
    assert [json.loads(row)["bytes_sent"] for row in rows[0]] == [1, 2, 3]
    assert texts[0] == texts[1]
    assert ways[0] == ways[1]


def test_refusals_are_counted_each() -> None:
    metrics = Metrics()
    metrics.ended(Flow(reporter="source", verdict="deny", reason="refused"), *[Ending("1", reason="refused")] * 3)
    assert 'ambient_connections_refused_total{reason="refused"} 3.0' in asyncio.run(metrics.text())


def test_a_pod_that_is_refused_in_a_loop_has_a_record_of_each(tmp_path: Path) -> None:
    place = tmp_path / "journal"
    metrics, paths = Metrics(), Paths()
    refused = Flow(reporter="source", source=CLIENT, verdict="deny", rule="no", reason="not_in_registry", path="none")
    with place.open("wb") as out:
        telemetry = Telemetry(Journal(out.fileno()), metrics, paths.ended)
        for number in range(1000):
            by = telemetry.ended_directly if number % 2 else telemetry.ended  # the kernel refuses, or the engine
            by(refused, Ending(f"{number}", destination="192.0.2.1:80", reason="refused"))
        telemetry.flush()
    rows = list(map(json.loads, place.read_text().splitlines()))
    assert [row["connection"] for row in rows] == [f"{number}" for number in range(1000)]
    assert 'ambient_connections_refused_total{reason="not_in_registry"} 1000.0' in asyncio.run(metrics.text())
    assert [row["ended"] for row in paths.of("front", [])] == [1000]
