"""What the load generators print, read: outputs that were recorded, and what may go wrong with them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bench.mesh import outputs
from bench.mesh.outputs import LoadFailed, Outcome

RECORDED = Path(__file__).parent / "recorded"
SOCKPERF, SOCKPERF_LOGS, IPERF3, REFUSED, WRK = (
    (RECORDED / name).read_text()
    for name in ("sockperf.txt", "sockperf-logs.txt", "iperf3.json", "iperf3-refused.json", "wrk.txt")
)
RECEIVED_BYTES = 2_427_060_224  # of iperf3.json
three_processes = functools.partial(outputs.sockperf_logs, processes=3)
two_processes = functools.partial(outputs.sockperf_logs, processes=2)


def test_sockperf_gives_percentiles_of_the_round_trip_and_the_whole_number_of_them() -> None:
    found = outputs.sockperf(SOCKPERF)
    assert found == Outcome({"p50_us": 15.172, "p99_us": 55.642, "p999_us": 389.948}, work=52112)


def test_logs_of_several_connections_give_percentiles_of_all_their_round_trips() -> None:
    found = two_processes(SOCKPERF_LOGS)
    assert found == Outcome({"p50_us": 287.657, "p99_us": 2733.375, "p999_us": 2733.375}, work=40 + 41)


@pytest.mark.parametrize(
    ("percent", "value"),
    [(50, 2.0), (75, 3.0), (75.1, 4.0), (100, 4.0), (0, 1.0)],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, value: float) -> None:
    assert outputs.percentile([1.0, 2.0, 3.0, 4.0], percent) == value


def test_iperf3_gives_what_the_receiver_got() -> None:
    found = outputs.iperf3(IPERF3)
    received = RECEIVED_BYTES / 1e9
    assert found.work == received
    assert found.figures["gbit_s"] == pytest.approx(received * 8, rel=0.1)  # in a second


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        pytest.param("", 0, id="all well"),
        pytest.param("  Socket errors: connect 1, read 2, write 3, timeout 4\n", 10, id="socket errors are added up"),
        pytest.param("  Non-2xx or 3xx responses: 7\n", 7, id="refusals count"),
    ],
)
def test_wrk_gives_requests_and_errors(more: str, errors: int) -> None:
    said = WRK.replace("Requests/sec", f"{more}Requests/sec")
    assert outputs.wrk(said) == Outcome({"per_s": 47811.73}, work=52925, errors=errors)


def test_wrk_with_a_connection_for_each_request_says_the_same() -> None:
    assert outputs.wrk((RECORDED / "wrk-close.txt").read_text()) == Outcome({"per_s": 12775.04}, work=12875)


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        pytest.param(outputs.sockperf, "", "nothing was printed", id="sockperf: silence"),
        pytest.param(outputs.sockperf, "sockperf: ERROR: Can`t connect", "Can`t connect", id="sockperf: its own error"),
        pytest.param(
            outputs.sockperf, SOCKPERF.replace("Round trip", "Latency"), "no round trips", id="sockperf: half a trip"
        ),
        pytest.param(
            outputs.sockperf, SOCKPERF.replace("99.900", "99.800"), "lacks percentile 99.900", id="sockperf: too little"
        ),
        pytest.param(
            three_processes,
            SOCKPERF_LOGS,
            "2 of 3 connections",
            id="logs: one lost",
        ),
        pytest.param(two_processes, SOCKPERF_LOGS.replace("--full-rtt", ""), "2 of 2", id="logs: half a trip"),
        pytest.param(outputs.iperf3, "iperf3: error", "no JSON", id="iperf3: text"),
        pytest.param(
            outputs.iperf3,
            REFUSED,
            "Connection refused",
            id="iperf3: its own error",
        ),
        pytest.param(outputs.iperf3, IPERF3.replace("sum_received", "sum"), "sum_received", id="iperf3: no receiver"),
        pytest.param(outputs.wrk, "unable to connect", "unable to connect", id="wrk: its own error"),
        pytest.param(outputs.wrk, WRK.replace("52925 req", "0 req"), "no request", id="wrk: nothing done"),
    ],
)
def test_anything_else_is_an_error_that_shows_what_was_printed(parse: outputs.Parse, text: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        parse(text)
