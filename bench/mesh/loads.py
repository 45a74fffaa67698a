"""The loads: which program is run in the client pod, what it prints and what its figures are called. Data only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.mesh import outputs
from bench.mesh.outputs import Parse

SOCKPERF, IPERF3, HTTP = 11111, 5201, 8080  # the server pod's ports
PORTS = (SOCKPERF, IPERF3, HTTP)
TITLES = {"p50_us": "p50, us", "p99_us": "p99, us", "p999_us": "p99.9, us", "gbit_s": "Gbit/s", "per_s": "per second"}

Command = Callable[[str, int], list[str]]  # the server's address, seconds -> the words


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    name: str  # in results and on the command line, stable
    title: str
    figures: tuple[str, ...]  # of the outcome, in this order
    cpu_unit: str
    cpu_scale: float  # CPU seconds per piece of work, times this, is in cpu_unit
    command: Command
    parse: Parse
    beside: Load | None = None  # runs all the while, and the work is its
    first: bool = True  # `beside` is under way before the load's own connection is opened; else soon after


def _sockperf(address: str, seconds: int) -> str:
    return f"sockperf ping-pong --tcp -i {address} -p {SOCKPERF} -m 64 -t {seconds} --full-rtt"


# One process a connection: sockperf itself has only one message under way, however many connections it holds.
_CROWD = """
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for i in $(seq {count}); do {sockperf} --full-log "$folder/$i" > "$folder/said.$i" 2>&1 & done
wait
cat "$folder"/[0-9]* || cat "$folder/said.1" >&2
"""


def _round_trips(connections: int) -> Load:
    def command(address: str, seconds: int) -> list[str]:
        sockperf = _sockperf(address, seconds)
        if connections == 1:
            return sockperf.split()
        return ["sh", "-c", _CROWD.format(count=connections, sockperf=sockperf)]

    several = functools.partial(outputs.sockperf_logs, processes=connections)
    return Load(
        name=f"round_trip_{connections}",
        title=f"64-byte round trips, {_of(connections, 'connection')}",
        figures=tuple(outputs.PERCENTILES),
        cpu_unit="CPU us per round trip",
        cpu_scale=1e6,
        command=command,
        parse=outputs.sockperf if connections == 1 else several,
    )


def _bulk(streams: int, *, longer: int = 0) -> Load:
    def command(address: str, seconds: int) -> list[str]:
        return f"iperf3 -c {address} -p {IPERF3} -P {streams} -t {seconds + longer} --json".split()

    return Load(
        name=f"bulk_{streams}",
        title=f"bulk, {_of(streams, 'stream')}",
        figures=("gbit_s",),
        cpu_unit="CPU s per GB",
        cpu_scale=1,
        command=command,
        parse=outputs.iperf3,
    )


def _http(connections: int, *, keep: bool) -> Load:
    def command(address: str, seconds: int) -> list[str]:
        close = [] if keep else ["-H", "Connection: close"]
        return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *close, f"http://{address}:{HTTP}/"]

    kept = f"HTTP keep-alive, {connections} connections"
    return Load(
        name=f"{'http' if keep else 'connections'}_{connections}",
        title=kept if keep else f"new connections, {connections} at a time",
        figures=("per_s",),
        cpu_unit="CPU us per request" if keep else "CPU us per connection",
        cpu_scale=1e6,
        command=command,
        parse=outputs.wrk,
    )


def _mixed(name: str, which: str, *, first: bool) -> Load:
    mice = _round_trips(1)
    return Load(
        name=name,
        title=f"64-byte round trips beside {which} bulk stream",
        figures=(*mice.figures, "gbit_s"),
        cpu_unit="CPU s per GB, all together",
        cpu_scale=1,
        command=mice.command,
        parse=mice.parse,
        beside=_bulk(1, longer=2),
        first=first,
    )


def _of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


LOADS = (
    *(_round_trips(count) for count in (1, 64)),
    *(_bulk(count) for count in (1, 8)),
    *(_http(count, keep=True) for count in (16, 64, 512)),
    *(_http(count, keep=False) for count in (16, 64, 512)),
    _mixed("mixed", "an older", first=True),
    _mixed("mixed_younger", "a younger", first=False),  # which may join the tunnel that they are on
)
NAMES = tuple(load.name for load in LOADS)
