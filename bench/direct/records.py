"""python -m bench.direct.records: an agent's CPU time per direct connection that ended: its record and its metrics.

What the kernel would have written is made up; from there on it is the agent's own way, to a file. What waking the agent
costs, and reading the kernel's ring, is not in it. No root.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import click

from ambient.agent.telemetry import Telemetry
from ambient.capture import abi, direct
from ambient.dataplane import ended
from ambient.dataplane.decisions import Decisions
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Hop, Outcome, Question, Way
from ambient.model.mesh import IPAddress, address
from ambient.model.world import World
from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.paths import Paths
from ambient.observe.records import Flow, Party
from bench import command

CLIENT, SERVER, VIP = map(address, ("10.1.0.1", "10.1.0.5", "10.96.0.1"))
NUMBER, CLIENT_COOKIE, SERVER_COOKIE = 3, 1, 2


@click.command(cls=command.Command)
@click.option("--records", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(records: int, rounds: int) -> None:
    found = [asyncio.run(_round(records)) for _ in range(rounds)]
    click.echo(f"{statistics.median(found):.2f} us a record ({min(found):.2f} to {max(found):.2f})")


async def _round(records: int) -> float:
    with tempfile.TemporaryFile() as file:
        journal = Journal(file)
        endings = _endings(_Kernel(records), Telemetry(journal, Metrics(), Paths().ended))
        began = time.process_time_ns()
        while endings.read() == ended.BATCH:
            pass
        spent = time.process_time_ns() - began
        assert os.pread(file.fileno(), 1 << 30, 0).count(b"\n") == records
    return spent / records / 1000


class _Kernel:
    """A ring that is full."""

    def __init__(self, records: int) -> None:
        self._rows = [_row(number, time.monotonic_ns()) for number in range(records)]
        self._at = 0

    def fileno(self) -> int:
        raise AssertionError("nobody waits for it")

    def read(self, take: Callable[[direct.Ended], None], limit: int) -> int:
        rows = self._rows[self._at : self._at + limit]
        self._at += len(rows)
        for row in rows:
            take(direct.read_ended(row))
        return len(rows)


def _row(number: int, now: int) -> bytes:
    """They begin every 70 us, and last for up to a millisecond."""
    started = now + number * 70_000
    return bytes(
        abi.Ended(
            client=CLIENT_COOKIE,
            server=SERVER_COOKIE,
            number=NUMBER,
            started=started,
            established=started + 40_000,
            ended=started + 90_000 + number * 7919 % 900_000,
            bytes_out=120,
            bytes_in=850,
            flow=abi.FlowKey(abi.Ip.of(CLIENT), abi.Ip.of(SERVER), 20_000 + number % 40_000, 8080),
            dialled=abi.Ip.of(VIP),
            dialled_port=80,
            kind=abi.Kind.DIRECT,
            state=abi.EndedState.ADMITTED,
            last=9,
        )
    )


def _endings(kernel: _Kernel, telemetry: Telemetry) -> ended.Endings:
    """Of one decision, which stands."""
    flow = Flow(
        reporter="destination",
        source=_party("client", CLIENT),
        destination=_party("server", SERVER),
        service="server.shop.svc.cluster.local",
        rule="shop/allow-client",
        path="direct",
    )
    hop = Hop(ip=SERVER, port=8080, weight=1, cookie=SERVER_COOKIE, server="shop/server", flow=flow)
    decisions = Decisions(_judge, 1)
    decisions.inherit(NUMBER, None, flow, Way(kind=abi.Kind.DIRECT, hops=(hop,)))
    return ended.Endings(
        kernel,
        decisions,
        LocalPods(),
        telemetry,
        world=World,
        stands=lambda _: True,
        touched=lambda _: None,
        answered=lambda *_: None,
    )


def _party(name: str, ip: IPAddress) -> Party:
    principal = f"cluster.local/ns/shop/sa/{name}"
    return Party(
        workload=f"{name}-0", namespace="shop", service_account=name, principal=principal, address=str(ip), owner=name
    )


def _judge(question: Question) -> Outcome:
    raise AssertionError(f"nobody asks: {question}")


if __name__ == "__main__":
    main()
