"""What the load generators print, read."""

from __future__ import annotations

import json

import pytest

from bench.engine import outputs
from bench.engine.outputs import LoadFailed, Outcome

SOCKPERF = """\
sockperf: == version #3.7-no.git ==
sockperf: [Total Run] RunTime=1.001 sec; Warm up time=400 msec; SentMessages=37277; ReceivedMessages=37276
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=20887; ReceivedMessages=20887
sockperf: Summary: Round trip is 26.286 usec
sockperf: ---> percentile 75.000 =   23.974
sockperf: ---> percentile 50.000 =   22.772
sockperf: ---> percentile 25.000 =   21.520
"""
WRK = """\
Running 2s test @ http://10.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.05ms    1.10ms  21.18ms   88.18%
    Req/Sec     2.82k   360.25     3.30k    75.00%
  5631 requests in 2.01s, 0.85MB read
{more}Requests/sec:   2804.33
Transfer/sec:    435.44KB
"""
NO_RECEIVER = {"end": {"sum_sent": {"bytes": 1}}}


def test_sockperf_gives_the_median_round_trip_and_the_whole_number_of_them() -> None:
    assert outputs.sockperf(SOCKPERF) == Outcome(rate=22.772, work=37276)


def test_iperf3_gives_what_the_receiver_got() -> None:
    end = {
        "sum_sent": {"bytes": 900_000_000, "bits_per_second": 7.2e9},
        "sum_received": {"bytes": 816_000_000, "bits_per_second": 6.5e9},
    }
    assert outputs.iperf3(json.dumps({"end": end})) == Outcome(rate=6.5, work=0.816)


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        pytest.param("", 0, id="all well"),
        pytest.param("  Socket errors: connect 1, read 2, write 3, timeout 4\n", 10, id="socket errors are added up"),
        pytest.param("  Non-2xx or 3xx responses: 7\n", 7, id="refusals count"),
    ],
)
def test_wrk_gives_requests_and_errors(more: str, errors: int) -> None:
    assert outputs.wrk(WRK.format(more=more)) == Outcome(rate=2804.33, work=5631, errors=errors)


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        pytest.param(outputs.sockperf, "", "nothing was printed", id="sockperf: silence"),
        pytest.param(outputs.sockperf, "sockperf: ERROR: Can`t connect", "Can`t connect", id="sockperf: its own error"),
        pytest.param(
            outputs.sockperf,
            SOCKPERF.replace("Round trip", "Latency"),
            "no round trips",
            id="sockperf: half of a round trip",
        ),
        pytest.param(outputs.iperf3, "iperf3: error", "no JSON", id="iperf3: text"),
        pytest.param(outputs.iperf3, '{"end": {}, "error": "refused"}', "refused", id="iperf3: its own error"),
        pytest.param(outputs.iperf3, json.dumps(NO_RECEIVER), "sum_received", id="iperf3: no receiver"),
        pytest.param(outputs.wrk, "unable to connect", "unable to connect", id="wrk: its own error"),
        pytest.param(outputs.wrk, WRK.replace("5631 req", "0 req"), "no request", id="wrk: nothing done"),
    ],
)
def test_anything_else_is_an_error_that_shows_what_was_printed(parse: outputs.Parse, text: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        parse(text)
