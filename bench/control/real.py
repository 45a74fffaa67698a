"""python -m bench.control.real: the control plane and an agent as they are run, against a real API server, by its size.

Nodes and pods are kwok's (see `fakes`), agents are simulated but for one; what happens between the API server and the
agents is real: watches, tokens, status, TLS. Root.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from bench import command
from bench.control import fakes, measure, report
from bench.control.__main__ import WIDTH, write
from bench.control.measure import Figures, Target
from bench.mesh import cpu
from hack.kube import ClusterError, config, layout
from hack.kube.pki import Pair

RESULTS = Path(__file__).parents[1] / "results" / "control-real.json"
GRPC, HEALTH, AGENT_HEALTH = 15012, 15021, 15031
WATCHER = "watcher"  # a node without pods: none of theirs is there to be captured
READY_S = 120.0
LOOK_S = 0.01
SERVER_NAME = f"{fakes.CONTROL}.{fakes.NAMESPACE}.svc"


@click.command(cls=command.Command)
@click.option(
    "--sizes", type=command.Sizes(), default="1000,5000,10000", show_default=True, help="Pods, one column each."
)
@click.option("--agents", default=100, show_default=True, type=click.IntRange(1))
@click.option("--changes", default=50, show_default=True, type=click.IntRange(2), help="Of each kind.")
@click.option("--note", default="", help="Kept with the results, for example what else the machine did.")
@click.option("--output", default=RESULTS, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(sizes: tuple[int, ...], agents: int, changes: int, note: str, output: Path) -> None:
    """Bring up an API server with so many pods, change them one by one, and see what it costs whom."""
    command.need_root("to bring up a cluster")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        columns = {str(size): _size(size, agents, changes, console) for size in sizes}
    except (measure.Failed, cpu.ProcessGone, ClusterError) as error:
        raise click.ClickException(str(error)) from error
    console.print(report.table(columns, agents))
    write(output, columns, agents, changes, note)
    console.print(f"figures: {output}")


def _size(pods: int, agents: int, changes: int, console: Console) -> Figures:
    console.print(f"{pods} pods: creating them", style="dim")
    begun = time.monotonic()
    with fakes.up(pods) as there, tempfile.TemporaryDirectory(prefix="ambient-bench-") as name:
        console.print(f"{pods} pods run after {time.monotonic() - begun:.0f} s", style="dim")
        with _control(there, Path(name)) as (target, figures):
            figures |= measure.pushes(target, agents, changes)
            with _agent(there, target, Path(name)) as ready:
                figures |= ready
            return figures


@contextlib.contextmanager
def _control(there: fakes.Fakes, folder: Path) -> Iterator[tuple[Target, Figures]]:
    """One replica, as its ServiceAccount, and how long it took to be ready."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_kubeconfig(there.token(fakes.CONTROL, folder / "control-token").read_text()))
    service = there.service("ambient-control")
    words = ["control", f"--kubeconfig={kubeconfig}", "--pod=bench", f"--grpc-port={GRPC}", f"--health-port={HEALTH}"]
    begun = time.monotonic()
    service.start([sys.executable, "-m", "ambient", *words])
    try:
        service.until("a ready control plane", lambda: _is_ready(HEALTH), within=READY_S)
        ready = {"control_ready_s": time.monotonic() - begun, "control_alone_mb": cpu.resident(service.pids())}
        roots = folder / "roots.pem"
        roots.write_text(there.roots())
        numbers = {"pod": iter(range(there.pods)), "policy": iter(range(1 << 30))}
        (pid,) = service.pids()
        yield (
            Target(
                f"127.0.0.1:{GRPC}",
                SERVER_NAME,
                roots,
                there.agents_token(folder / "token"),
                pid,
                lambda kind: there.change(kind, next(numbers[kind])),
            ),
            ready,
        )
    finally:
        service.stop()


@contextlib.contextmanager
def _agent(there: fakes.Fakes, target: Target, folder: Path) -> Iterator[Figures]:
    """A whole one, of a node whose pods are not there to be captured."""
    run, bpffs = folder / "run", folder / "bpffs"
    run.mkdir()
    bpffs.mkdir()
    service = there.service("ambient-agent")
    words = ["agent", f"--node={WATCHER}", f"--control={target.address}", f"--control-name={target.server_name}"]
    words += [f"--control-roots={target.roots}", f"--control-token={target.token}", f"--run-dir={run}"]
    words += [f"--bpffs={bpffs}", f"--health-port={AGENT_HEALTH}", "--metrics-port=15030", "--engine-threads=1"]
    service.cgroup.mkdir(parents=True, exist_ok=True)
    words.append(f"--cgroup={service.cgroup}")
    script = f'mount -t bpf bpf {bpffs} && exec "$@"'
    begun = time.monotonic()
    enter = ["unshare", "--mount", "--", "sh", "-c", script, "sh"]
    service.start([sys.executable, "-m", "ambient", *words], enter=enter)
    try:
        service.until("a ready agent", lambda: _is_ready(AGENT_HEALTH), within=READY_S)
        found = {"real_agent_ready_s": time.monotonic() - begun}
        agents = [pid for pid in service.pids() if b"ambient\0agent" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        cpu.rest(tuple(agents))
        yield found | {"real_agent_mb": cpu.resident(agents)}
    finally:
        service.stop()


def _is_ready(port: int) -> bool:
    time.sleep(LOOK_S)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=5) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def _kubeconfig(token: str) -> str:
    """For whoever has this token."""
    found = json.loads(config.kubeconfig((layout.PKI / "ca.crt").read_bytes(), Pair(b"", b"")))
    found["users"][0]["user"] = {"token": token}
    return json.dumps(found)


if __name__ == "__main__":
    main()
