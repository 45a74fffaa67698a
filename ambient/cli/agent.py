"""`ambient agent`: run the node agent. Reads options and environment into config.AgentSettings; nothing else does."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

import click

from ambient import config
from ambient.cli import names, numbers
from ambient.cli.errors import Failure, Lacking
from ambient.model.mesh import MeshConfig, OutboundMode, SameNode

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(context_settings={"auto_envvar_prefix": "AMBIENT", "show_default": True})
@click.option(
    "--node", type=names.NODE, default=config.node_name, show_default="the host's name", help="This node's name."
)
@click.option("--source", type=EXISTING, help="Directory of Kubernetes manifests; changes are followed.")
@click.option("--ca-dir", type=FOLDER, help="With --source: the embedded CA's directory, made on first use.")
@click.option("--control", multiple=True, type=names.UPSTREAM, help="The control plane, instead of both.")
@click.option(
    "--control-name",
    type=names.DNS_NAME,
    default="ambient-control.ambient-system.svc",
    help="The DNS name in the control plane's certificate.",
)
@click.option(
    "--control-roots",
    type=FILE,
    default=Path("/var/run/secrets/ambient/root/roots.pem"),
    help="Whose certificates the control plane may have; PEM.",
)
@click.option(
    "--control-token",
    type=FILE,
    default=Path("/var/run/secrets/ambient/token/token"),
    help="This pod's ServiceAccount token for the control plane.",
)
@click.option("--engine", type=click.Choice(["start", "wait"]), default="start", help="Where there is no engine.")
@click.option("--cgroup", type=EXISTING, help="The cgroup v2 directory whose pods are captured.  [default: its root]")
@click.option("--bpffs", type=EXISTING, default=Path("/sys/fs/bpf"), help="A mounted bpffs for pins.")
@click.option("--run-dir", type=FOLDER, default=Path("/run/ambient"), help="Admin and engine sockets.")
@click.option("--trust-domain", type=names.TRUST_DOMAIN, default="cluster.local", help="SPIFFE trust domain.")
@click.option(
    "--root-namespace", type=names.NAMESPACE, default="ambient-system", help="Its policies hold for the whole mesh."
)
@click.option(
    "--outbound",
    type=click.Choice([mode.value for mode in OutboundMode]),
    default=OutboundMode.ALLOW_ANY.value,
    help="What pods may dial that the mesh does not know, unless their namespace says otherwise.",
)
@click.option(
    "--same-node",
    type=click.Choice([mode.value for mode in SameNode]),
    default=SameNode.DIRECT.value,
    help="How pods of one node talk, unless they or their namespaces say otherwise.",
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=15020, help="Prometheus, /metrics.")
@click.option("--health-port", type=click.IntRange(0, 65535), default=15021, help="/healthz/ready and /healthz/live.")
@click.option(
    "--health-address",
    type=names.ADDRESS,
    default="127.0.0.1",
    help="Where the health port listens; empty: everywhere.",
)
@click.option("--engine-binary", type=FILE, help="The engine to start.  [default: the one built with this agent]")
@click.option(
    "--drain-timeout",
    type=click.IntRange(0),
    default=24 * 3600,
    metavar="SECONDS",
    help="How long an engine that was replaced carries what it has; then it is cut. 0: to its end.",
)
@click.option("--engine-threads", type=click.IntRange(1, 64), default=2, help="Workers of an engine this agent starts.")
@click.option(
    "--certificate-hours",
    type=numbers.Span(0.002, 168, unit="hours"),
    default=24.0,
    help="Their lifetime; renewed at half of it.",
)
@click.option("--cni-bin-dir", type=EXISTING, help="Install the CNI plugin: where the node's CNI plugins are.")
@click.option("--cni-conf-dir", type=EXISTING, help="Install the CNI plugin: where the node's CNI configuration is.")
@click.option(
    "--cni-exempt",
    type=names.NAMESPACE,
    multiple=True,
    default=("kube-system",),
    help="Namespaces whose pods start though no agent can say what they are; the root namespace's always do.",
)
@click.option(
    "--cni-agents",
    default="",
    metavar="PREFIX",
    help="How kubelet's directory for an agent's pod begins (/var/log/pods/NAMESPACE_DAEMONSET-): where there is none "
    "any more, the plugin holds nobody for want of an agent but what was the mesh's.",
)
@click.option(
    "--daemonset",
    type=names.DAEMONSET,
    metavar="NAMESPACE/NAME",
    help="Watch what becomes of the agents' DaemonSet, for `ambient uninstall --if-daemonset-gone`.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The least that is logged.",
)
def agent(
    node: str,
    source: Path | None,
    ca_dir: Path | None,
    control: tuple[str, ...],
    control_name: str,
    control_roots: Path,
    control_token: Path,
    engine: str,
    cgroup: Path | None,
    bpffs: Path,
    run_dir: Path,
    trust_domain: str,
    root_namespace: str,
    outbound: str,
    same_node: str,
    metrics_port: int,
    health_port: int,
    health_address: str,
    engine_binary: Path | None,
    drain_timeout: int,
    engine_threads: int,
    certificate_hours: float,
    cni_bin_dir: Path | None,
    cni_conf_dir: Path | None,
    cni_exempt: tuple[str, ...],
    cni_agents: str,
    daemonset: str | None,
    log_level: str,
) -> None:
    """Run the node agent in the foreground.

    Access records go to stdout, one JSON object a line; the log goes to stderr. Ends with 0 after SIGTERM or when
    another agent took over, with 1 and a reason when it cannot go on. Its engine, and every connection, live on.
    """
    if bool(control) == bool(source) or bool(source) != bool(ca_dir):
        raise click.UsageError("say where the configuration comes from: either --source and --ca-dir, or --control")
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    from ambient.agent import root

    try:
        root_cgroup = config.cgroup2_root()
    except LookupError as error:
        raise Lacking(str(error)) from error
    settings = config.AgentSettings(
        node=node,
        source=source,
        ca_dir=ca_dir,
        control=config.Upstream(targets=control, server_name=control_name, roots=control_roots, token=control_token)
        if control
        else None,
        own_engine=engine == "start",
        cgroup=cgroup or root_cgroup,
        bpffs=bpffs,
        run_dir=run_dir,
        mesh=MeshConfig(trust_domain, root_namespace, OutboundMode(outbound), SameNode(same_node)),
        metrics_port=metrics_port,
        health_port=health_port,
        health_address=health_address,
        engine_binary=engine_binary,
        drain_timeout_s=drain_timeout,
        engine_threads=engine_threads,
        certificate_hours=certificate_hours,
        cni_dirs=_both(cni_bin_dir, cni_conf_dir),
        cni_exempt=cni_exempt,
        cni_agents=cni_agents,
        daemonset=daemonset or "",
    )
    if os.geteuid() != 0:
        raise Lacking("an agent needs root, for network namespaces and eBPF: run this as root")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it announces every file it sees
    gc.freeze()  # what is loaded now stays: later collections need not look at it
    try:
        asyncio.run(root.main(settings))
    except root.CANNOT_GO_ON as error:
        raise Failure(f"the agent of node {node} ends: {error}") from error


def _both(bin_dir: Path | None, conf_dir: Path | None) -> tuple[Path, Path] | None:
    if bin_dir is not None and conf_dir is not None:
        return bin_dir, conf_dir
    if bin_dir is not None or conf_dir is not None:
        raise click.UsageError("--cni-bin-dir and --cni-conf-dir go together: the plugin needs both")
    return None
