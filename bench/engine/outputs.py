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
    rate: float  # the column's figure: microseconds, Gbit/s, or work per second
    work: float  # what CPU time is divided by: round trips, GB (10^9 bytes), requests, connections
    errors: int = 0  # what the tool counted as failed and went on


Parse = Callable[[str], Outcome]


def sockperf(text: str) -> Outcome:
    """`sockperf ping-pong --full-rtt`: the median round trip in microseconds; work is round trips."""
    median = re.search(r"percentile 50\.000 =\s*([\d.]+)", text)
    total = re.search(r"\[Total Run\].*ReceivedMessages=(\d+)", text)
    if not median or not total or "Round trip is" not in text:
        raise LoadFailed(f"sockperf measured no round trips: {_end(text)}")
    return Outcome(float(median[1]), float(total[1]))


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
        return Outcome(received["bits_per_second"] / 1e9, received["bytes"] / 1e9)
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
    return Outcome(float(rate[1]), float(total[1]), errors + (int(refused[1]) if refused else 0))


def _end(text: str) -> str:
    return text.strip()[-300:] or "(nothing was printed)"
