"""`ambient uninstall`: take the CNI plugin and the capture off this node. Files first: no pod is held up by them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import click

from ambient.cli import names, numbers
from ambient.cli import output as printing
from ambient.cli.errors import Failure, Lacking, warn

FOLDER = click.Path(file_okay=False, path_type=Path)
AGENT_S = 2.0  # for a word of an agent that is well
ASK_AGAIN_S = 0.2  # an agent has no event for "nothing is captured any more" that another process could wait for


@click.command(context_settings={"auto_envvar_prefix": "AMBIENT", "show_default": True})
@click.option("--cni-bin-dir", type=FOLDER, default=Path("/opt/cni/bin"), help="The node's CNI plugins.")
@click.option("--cni-conf-dir", type=FOLDER, default=Path("/etc/cni/net.d"), help="The node's CNI configuration.")
@click.option("--run-dir", type=FOLDER, default=Path("/run/ambient"), help="The agent's.")
@click.option("--cgroup", type=FOLDER, help="The agent's, for what a dead one left.  [default: cgroup v2's root]")
@click.option("--bpffs", type=FOLDER, default=Path("/sys/fs/bpf"), help="The same.")
@click.option(
    "--if-daemonset-gone",
    type=names.DAEMONSET,
    metavar="NAMESPACE/NAME",
    help="Only if the API server says so, asked with this pod's credentials, or the agent saw it go: for the hook that "
    "ends an agent's pod.",
)
@click.option(
    "--wait",
    "wait_s",
    envvar="AMBIENT_WAIT",
    type=numbers.Span(0),
    default=30.0,
    help="Seconds for open connections to end.",
)
@printing.of_change
def uninstall(
    cni_bin_dir: Path,
    cni_conf_dir: Path,
    run_dir: Path,
    cgroup: Path | None,
    bpffs: Path,
    if_daemonset_gone: str | None,
    wait_s: float,
    output: str,
) -> None:
    """Take the CNI plugin off this node, then everybody's capture; pods go on, without the mesh.

    An agent that runs lets its pods go within seconds, and removes its programs from the kernel when it is ended. It is
    waited for, until no captured connection is open or --wait is over. What an agent left that runs no more is removed
    at once, its engine and the connections in it too. Starting an agent installs everything again.
    """
    from ambient.agent.cni import install

    told, admin = printing.Told(output), run_dir / "admin.sock"
    if if_daemonset_gone is not None and not _is_gone(if_daemonset_gone, admin, told):
        told.end(removed=False, let_go=None, engines=[])
        return
    try:
        install.uninstall(cni_bin_dir, cni_conf_dir, run_dir)
    except PermissionError as error:
        raise _unless_root(f"the CNI plugin cannot be removed: {error}") from error
    except OSError as error:
        raise Failure(f"the CNI plugin cannot be removed: {error}") from error
    told.say(f"the CNI plugin is off this node: {cni_conf_dir} is as the node's CNI left it")
    let_go, engines = _await_agent(admin, wait_s, told), list[int]()
    if let_go is None:
        _remove_capture(cgroup, bpffs, told)
        engines = _end_engines(run_dir, told)
    told.end(removed=True, let_go=let_go is not False, engines=engines)


def _is_gone(daemonset: str, admin: Path, told: printing.Told) -> bool:
    from ambient.agent.cni import apiserver, removal

    namespace, _, name = daemonset.partition("/")
    try:
        with contextlib.closing(apiserver.ApiServer()) as server:
            finding, why = removal.find_out(namespace, name, server.get, lambda: _agent_saw(admin))
    except OSError as error:
        finding, why = removal.Finding.UNKNOWN, str(error)
    if finding is removal.Finding.GONE:
        told.say(why)
        return True
    kept = "" if finding is removal.Finding.THERE else "; if the mesh is being removed, run `ambient uninstall` here"
    told.say(f"{why}; the CNI plugin stays{kept}")
    return False


def _agent_saw(admin: Path) -> str:
    """What the agent here saw become of its DaemonSet: empty if it stays, and if there is nobody to say so."""
    from ambient.observe import client

    try:
        return str(client.call(admin, "status", deadline_s=AGENT_S).get("daemonset_gone", ""))
    except (client.Unreachable, client.Refused):
        return ""


def _await_agent(admin: Path, wait_s: float, told: printing.Told) -> bool | None:
    """Whether it let go of everything in time; None: there is no agent."""
    from ambient.observe import client

    deadline = time.monotonic() + wait_s
    silent = False
    try:  # all nodes at once: what one lets go of another dials
        client.call(admin, "look", deadline_s=AGENT_S)
    except client.NoAnswer:
        silent = True
    except client.Forbidden as error:
        raise Lacking(str(error)) from error
    except client.Unreachable:
        return None
    except client.Refused:  # an older agent's, which looks by itself
        pass
    while (left := deadline - time.monotonic()) > 0:
        try:
            status: dict[str, Any] = client.call(admin, "status", deadline_s=min(left, 5.0))
        except client.NoAnswer:  # it is stopped, or has just ended
            silent = True
            time.sleep(min(left, ASK_AGAIN_S))
            continue
        except client.Unreachable:
            return None
        silent = False
        captured = sorted(key for key, pod in status["pods"].items() if pod["captured"])
        if not captured and not status["leaving"]:
            told.say("no pod of this node is captured any more")
            return True
        time.sleep(min(left, ASK_AGAIN_S))
    if silent:
        warn(f"the agent at {admin} does not answer, and is left alone: end it, and run this again")
    else:
        warn(f"the agent had not let go of everything after {wait_s:g} s: what is open ends with it")
    return False


def _remove_capture(cgroup: Path | None, bpffs: Path, told: printing.Told) -> None:
    """Of an agent that is not there any more."""
    from ambient import config
    from ambient.capture import Capture, CaptureError

    try:
        if not any(pin.name.startswith("ambient-v") for pin in bpffs.iterdir()):
            return
    except PermissionError as error:
        raise _unless_root(f"what an agent left in the kernel cannot be looked at: {error}") from error
    except OSError:  # no BPF file system, nothing pinned
        return
    try:
        Capture.open(cgroup or config.cgroup2_root(), bpffs).uninstall()
    except (CaptureError, LookupError) as error:
        raise Failure(f"what an agent left in the kernel cannot be removed: {error}") from error
    told.say("what an agent had left in the kernel is removed")


def _end_engines(run_dir: Path, told: printing.Told) -> list[int]:
    """After the capture: what is dialled meanwhile needs no engine any more."""
    from ambient import config
    from ambient.dataplane import leftover
    from ambient.dataplane.process import EngineFailed

    try:
        root: Path | None = config.cgroup2_root()
    except LookupError:
        root = None
    try:
        ended = leftover.end(run_dir, root)
    except PermissionError as error:
        raise _unless_root(f"the engine that an agent left cannot be ended: {error}") from error
    except EngineFailed as error:
        raise Failure(f"an engine that an agent left cannot be ended: {error}") from error
    for pid in ended:
        told.say(f"engine {pid}, which an agent had left, is ended, with the connections that it carried")
    return ended


def _unless_root(text: str) -> Failure:
    return Failure(text) if os.geteuid() == 0 else Lacking(f"{text}: run this as root")
