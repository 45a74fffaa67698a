"""`ambient trace`: starts the tracer beside us and tells its events in words. Changes nothing on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from ambient import config
from ambient.cli import names, numbers, sockets
from ambient.cli import output as printing
from ambient.cli.errors import Failure, Lacking
from ambient.observe import narrator, trace_needs


@click.command()
@click.option("--pod", type=names.POD, help="Only this pod. Default: every enrolled pod that is there now.")
@click.option("--for", "seconds", type=numbers.Span(0), help="Stop after so many seconds. Default: at Ctrl-C.")
@sockets.options
@printing.option
def trace(
    pod: str | None, seconds: float | None, node: str | None, lab: str | None, socket: Path | None, output: str
) -> None:
    """Watch enrolled pods' TCP live: connects, lookups, handshakes, resets, retransmits; one line an event.

    Needs root, bcc and kernel headers; compiles for the running kernel, in a process of its own. Times are seconds
    since boot.
    """
    if sockets.in_cluster():
        raise click.UsageError("trace watches the machine it runs on: run it on a node, without --cluster")
    if missing := trace_needs.missing():
        raise Lacking("ambient trace lacks " + "; and ".join(missing))
    known, addresses = _names(sockets.find(node, lab, socket), pod, node)
    watched = sorted({known.pods[address] for address in addresses})
    for event in _events({"addresses": addresses, "headers": trace_needs.headers()}, seconds):
        if event["event"] == "ready":
            known = narrator.Names(known.pods, known.services, known.cgroups, event["reset_reasons"])
            click.echo(f"Watching {', '.join(watched)}; Ctrl-C ends it.", err=True)
        elif line := narrator.tell(known, event):
            stamp = event.get("at_ns", 0) / 1e9
            click.echo(json.dumps({**event, "text": line}) if output == "json" else f"{stamp:.6f}  {line}")


def _events(asked: dict[str, Any], seconds: float | None) -> Iterator[dict[str, Any]]:
    """What the tracer sees until the time is up or Ctrl-C. It ends by itself when its stdin does, as when we die."""
    with subprocess.Popen(
        [trace_needs.PYTHON, "-I", trace_needs.TRACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stdin is not None
        assert tracer.stdout is not None
        timer = threading.Timer(seconds or 0, tracer.stdin.close)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                with contextlib.suppress(BrokenPipeError):  # it failed already: its exit code is what counts
                    tracer.stdin.write(json.dumps(asked) + "\n")
                    tracer.stdin.flush()
                for line in tracer.stdout:
                    event = json.loads(line)
                    if event["event"] == "ready" and seconds is not None:
                        timer.start()
                    yield event
        finally:  # also when who reads us has gone: nothing is waited for then
            timer.cancel()
            tracer.stdin.close()
    if tracer.returncode:
        raise Lacking(f"the tracer ended with {tracer.returncode}; what it said is above")


def _names(agents: list[sockets.Agent], pod: str | None, node: str | None) -> tuple[narrator.Names, list[str]]:
    """What everything is called, and the addresses to watch."""
    everyone = {
        f"{row['namespace']}/{row['name']}": row for _, rows in sockets.ask(agents, "workloads") for row in rows
    }
    vips = {
        vip: f"{row['name']}.{row['namespace']}"
        for _, rows in sockets.ask(agents, "services")
        for row in rows
        for vip in row["vips"]
    }
    watched = {
        key: row
        for key, row in everyone.items()
        if (key == pod if pod else row["enrolled"] and node in (None, row["node"]))
    }
    if not watched:
        raise Failure(
            f"there is no pod {pod}" if pod else "no pod is enrolled: label a namespace ambient.dev/mode=enabled"
        )
    known = narrator.Names(
        pods={address: key for key, row in everyone.items() for address in row["addresses"]},
        services=vips,
        cgroups=dict(_cgroups({row["uid"]: key for key, row in watched.items()})),
    )
    return known, sorted(address for row in watched.values() for address in row["addresses"])


def _cgroups(pods: dict[str, str]) -> Iterable[tuple[int, str]]:
    """(cgroup id, pod) of every cgroup that belongs to one of these pods, its containers' included."""
    for directory, _, _ in os.walk(config.cgroup2_root()):
        for uid, key in pods.items():
            if uid in directory or uid.replace("-", "_") in directory:
                yield Path(directory).stat().st_ino, key
