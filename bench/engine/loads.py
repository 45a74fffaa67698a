"""The loads: which program is run in the client pod, what it prints and what its figures are called. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.engine import outputs
from bench.engine.outputs import Parse

SOCKPERF, IPERF3, HTTP = 11111, 5201, 8080  # the server pod's ports
PORTS = (SOCKPERF, IPERF3, HTTP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    name: str  # in results, stable
    title: str  # in the table
    rate_unit: str
    cpu_unit: str
    cpu_scale: float  # CPU seconds per piece of work, times this, is in cpu_unit
    command: Callable[[str, int], list[str]]  # server's address, seconds
    parse: Parse


def _round_trips(address: str, seconds: int) -> list[str]:
    words = f"sockperf ping-pong --tcp -i {address} -p {SOCKPERF} -m 64 -t {seconds} --full-rtt"
    return words.split()


def _bulk(streams: int) -> Callable[[str, int], list[str]]:
    def command(address: str, seconds: int) -> list[str]:
        return f"iperf3 -c {address} -p {IPERF3} -P {streams} -t {seconds} --json".split()

    return command


def _http(connections: int, *headers: str) -> Callable[[str, int], list[str]]:
    def command(address: str, seconds: int) -> list[str]:
        options = [word for header in headers for word in ("-H", header)]
        return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *options, f"http://{address}:{HTTP}/"]

    return command


LOADS = (
    Load(
        name="round_trip",
        title="64-byte round trip, p50",
        rate_unit="us",
        cpu_unit="CPU us per round trip",
        cpu_scale=1e6,
        command=_round_trips,
        parse=outputs.sockperf,
    ),
    Load(
        name="bulk_1",
        title="bulk, 1 stream",
        rate_unit="Gbit/s",
        cpu_unit="CPU s per GB",
        cpu_scale=1,
        command=_bulk(1),
        parse=outputs.iperf3,
    ),
    Load(
        name="bulk_8",
        title="bulk, 8 streams",
        rate_unit="Gbit/s",
        cpu_unit="CPU s per GB",
        cpu_scale=1,
        command=_bulk(8),
        parse=outputs.iperf3,
    ),
    Load(
        name="http_64",
        title="HTTP keep-alive, 64 connections",
        rate_unit="requests/s",
        cpu_unit="CPU us per request",
        cpu_scale=1e6,
        command=_http(64),
        parse=outputs.wrk,
    ),
    Load(
        name="connections_16",
        title="new connections, 16 at a time",
        rate_unit="connections/s",
        cpu_unit="CPU us each",
        cpu_scale=1e6,
        command=_http(16, "Connection: close"),
        parse=outputs.wrk,
    ),
)
