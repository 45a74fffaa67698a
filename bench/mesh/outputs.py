"""What the load generators print, read. Pure; a text that is not what the tool prints when all is well is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass


class LoadFailed(Exception):
    """A load generator did not do its work; the text says which and shows what it said."""


@dataclass(frozen=True, slots=True)
class Outcome:
    figures: dict[str, float]  # name -> what users feel: p50_us, p99_us, p999_us, gbit_s, per_s
    work: float  # what CPU time is divided by: round trips, GB (10^9 bytes), requests, connections
    errors: int = 0  # what the tool counted as failed and went on


Parse = Callable[[str], Outcome]
PERCENTILES = {"p50_us": 50.0, "p99_us": 99.0, "p999_us": 99.9}


def sockperf(text: str) -> Outcome:
    """`sockperf ping-pong --full-rtt`: percentiles of the round trip in microseconds; work is round trips."""
    if "Round trip is" not in text:
        raise LoadFailed(f"sockperf measured no round trips: {_end(text)}")
    figures = {}
    for name, percent in PERCENTILES.items():
        found = re.search(rf"percentile {percent:.3f} =\s*([\d.]+)", text)
        if not found:
            raise LoadFailed(f"sockperf's report lacks percentile {percent:.3f}: {_end(text)}")
        figures[name] = float(found[1])
    total = sum(map(int, re.findall(r"\[Total Run\].*ReceivedMessages=(\d+)", text)))
    return Outcome(figures, total)


def sockperf_logs(text: str, *, processes: int) -> Outcome:
    """What several `sockperf --full-log` wrote, one after the other: percentiles of all round trips together.

    A log has a head with the totals, then a line `packet, txTime(sec), rxTime(sec), rtt(usec)` for each round trip
    after the warm-up.
    """
    totals = re.findall(r"\[Total Run\].*ReceivedMessages=(\d+)", text)
    trips = sorted(map(float, re.findall(r"^\d+, [\d.]+, [\d.]+, ([\d.]+)$", text, re.MULTILINE)))
    if len(totals) != processes or "--full-rtt" not in text or not trips:
        said = f"{len(totals)} of {processes} connections, {len(trips)} round trips"
        raise LoadFailed(f"sockperf's logs are of {said}: {_end(text)}")
    return Outcome({name: percentile(trips, of) for name, of in PERCENTILES.items()}, sum(map(int, totals)))


def percentile(ascending: list[float], percent: float) -> float:
    """Of values in ascending order: the smallest that is not below `percent` of them."""
    rank = -(-len(ascending) * percent // 100)  # rounded up
    return ascending[max(0, int(rank) - 1)]


def iperf3(text: str) -> Outcome:
    """`iperf3 --json`: what the receiver got, in Gbit/s; work is GB."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LoadFailed(f"iperf3 printed no JSON: {_end(text)}") from error
    if "error" in found:
        raise LoadFailed(f"iperf3: {found['error']}")
    try:
        received = found["end"]["sum_received"]
        return Outcome({"gbit_s": received["bits_per_second"] / 1e9}, received["bytes"] / 1e9)
    except KeyError as error:
        raise LoadFailed(f"iperf3's report lacks {error}: {_end(text)}") from error


def wrk(text: str) -> Outcome:
    """`wrk`: requests per second; work is requests, which are connections where each has its own."""
    total = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if not total or not rate or int(total[1]) == 0:
        raise LoadFailed(f"wrk completed no request: {_end(text)}")
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, socket_errors.groups())) if socket_errors else 0
    return Outcome({"per_s": float(rate[1])}, float(total[1]), errors + (int(refused[1]) if refused else 0))


def _end(text: str) -> str:
    return text.strip()[-300:] or "(nothing was printed)"
