"""`ambient control`: run a replica of the control plane. Reads options and environment into config.ControlSettings."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from pathlib import Path

import click

from ambient import config
from ambient.cli import names
from ambient.cli.errors import Failure
from ambient.model.mesh import MeshConfig, OutboundMode, SameNode


@click.command(context_settings={"auto_envvar_prefix": "AMBIENT", "show_default": True})
@click.option(
    "--namespace",
    type=names.NAMESPACE,
    default="ambient-system",
    help="Its own: Lease, CA and roots are kept there.",
)
@click.option(
    "--pod",
    "replica",
    envvar="AMBIENT_POD",
    default=config.node_name,
    show_default="the host's name",
    help="This replica's name.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The API server, and who we are there.  [default: this pod's ServiceAccount, else kubectl's]",
)
@click.option(
    "--ca-files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Sign with the mounted tls.crt and tls.key, below ca.crt.  [default: a CA of our own, in a Secret]",
)
@click.option("--trust-domain", type=names.TRUST_DOMAIN, default="cluster.local", help="SPIFFE trust domain.")
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
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=15012, help="For agents: discovery, certificates.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=15020, help="Prometheus, /metrics.")
@click.option("--health-port", type=click.IntRange(0, 65535), default=15021, help="/healthz/ready and /healthz/live.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The least that is logged.",
)
def control(
    namespace: str,
    replica: str,
    kubeconfig: Path | None,
    ca_files: Path | None,
    trust_domain: str,
    outbound: str,
    same_node: str,
    grpc_port: int,
    metrics_port: int,
    health_port: int,
    log_level: str,
) -> None:
    """Run a replica of the control plane in the foreground.

    Any number of replicas may run; each serves any agent. Policies in its own namespace hold for the whole mesh. Ends
    with 0 after SIGTERM, when agents have gone to other replicas, and with 1 and a reason when it cannot go on.
    """
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    from ambient.control import root

    settings = config.ControlSettings(
        namespace=namespace,
        replica=replica,
        kubeconfig=kubeconfig,
        ca_files=ca_files,
        mesh=MeshConfig(trust_domain, namespace, OutboundMode(outbound), SameNode(same_node)),
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        health_port=health_port,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    _keep()
    try:
        asyncio.run(root.main(settings, at_first_world=_keep))
    except root.CANNOT_GO_ON as error:
        raise Failure(f"control plane {replica} ends: {error}") from error


def _keep() -> None:
    """What is there now stays: later collections need not look at it. Of 50,000 pods that is 0.4 s, in which nobody is
    answered."""
    gc.collect()
    gc.freeze()
