"""python -m bench.control.source: what following a cluster costs, by its size. Each size has its own process."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from os import getpid

import click
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User
from rich.console import Console
from rich.table import Table

from ambient.model.mesh import MeshConfig
from ambient.model.world import World
from ambient.sources.errors import SourceError
from ambient.sources.kubernetes import Client, watch
from bench import command
from bench.mesh import cpu

CHANGES, BURST = 200, 1000
LEAST = CHANGES + 2  # pods: with fewer, one would be told to be what it is, which no World shows
TICK_S = 0.002
Items = AsyncGenerator[World | SourceError, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    pods: int
    ready_s: float  # from nothing to the first World
    ready_cpu_s: float
    pause_ms: float  # the longest that the event loop did nothing else meanwhile
    rss_mb: float
    change_ms: float  # one pod's: median
    change_p99_ms: float
    change_cpu_ms: float
    burst_s: float  # BURST pods at once, until the last is in a World
    burst_cpu_s: float
    burst_worlds: int


@click.command(cls=command.Command)
@click.option(
    "--pods",
    type=command.Sizes(LEAST),
    default="1000,5000,10000,50000",
    show_default=True,
    help="Sizes, separated by commas.",
)
@click.option("--measure", hidden=True, type=click.IntRange(LEAST), help="Measure this size, in this process.")
def main(pods: tuple[int, ...], measure: int | None) -> None:
    """Follow clusters with a fifth as many services as pods and 500 policies, played by another process."""
    if measure:
        print(json.dumps(asdict(asyncio.run(_measured(measure)))))
        return
    found = []
    for size in pods:
        words = [sys.executable, "-m", "bench.control.source", "--measure", str(size)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, process_group=0)
        found.append(json.loads(done.stdout))
    table = Table(*found[0])
    for row in found:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)


async def _measured(pods: int) -> Figures:
    async with _api_server(pods) as (stdin, stdout):
        url = f"http://127.0.0.1:{int(await stdout.readline())}"
        config = SingleConfig("bench", Context("bench"), Cluster(url), User())
        client = Client(config)
        began, used = time.monotonic(), time.process_time()
        async with aclosing(watch(client, MeshConfig())) as items:
            pauses = asyncio.create_task(_pauses(), name="pauses")
            world = await _world(items)
            ready_s, ready_cpu_s = time.monotonic() - began, time.process_time() - used
            pauses.cancel()
            assert len(world.workloads) == pods
            pause = await pauses
            await stdout.readline()  # the watch has begun
            rss_mb = cpu.resident([getpid()])
            delays, used = [], time.process_time()
            for _ in range(CHANGES):
                asked = time.monotonic()
                _change(stdin, 1)
                await _world(items)
                delays.append((time.monotonic() - asked) * 1000)
            change_cpu_ms = (time.process_time() - used) * 1000 / CHANGES
            began, used = time.monotonic(), time.process_time()
            _change(stdin, BURST)
            last, worlds = str(1 + CHANGES + BURST), 0
            while world.revision.partition("-")[0] != last:
                world, worlds = await _world(items), worlds + 1
            burst_s, burst_cpu_s = time.monotonic() - began, time.process_time() - used
        await client.close()
    return Figures(
        pods=pods,
        ready_s=ready_s,
        ready_cpu_s=ready_cpu_s,
        pause_ms=pause * 1000,
        rss_mb=rss_mb,
        change_ms=statistics.median(delays),
        change_p99_ms=statistics.quantiles(delays, n=100)[98],
        change_cpu_ms=change_cpu_ms,
        burst_s=burst_s,
        burst_cpu_s=burst_cpu_s,
        burst_worlds=worlds,
    )


async def _world(items: Items) -> World:
    item = await anext(items)
    if isinstance(item, SourceError):
        raise item
    return item


async def _pauses() -> float:
    """The longest delay of a short sleep, until cancelled."""
    longest = 0.0
    try:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.monotonic() - before - TICK_S)
    except asyncio.CancelledError:
        return longest


@asynccontextmanager
async def _api_server(pods: int) -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
    """Its input and its output."""
    words = [sys.executable, "-m", "bench.control.apiserver", str(pods), str(pods // 5), "500"]
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert server.stdin
    assert server.stdout
    try:
        yield server.stdin, server.stdout
    finally:
        server.stdin.close()
        await server.wait()


def _change(stdin: asyncio.StreamWriter, count: int) -> None:
    stdin.write(f"{count}\n".encode())


if __name__ == "__main__":
    main()
