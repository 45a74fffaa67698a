"""What can be read on the network between the nodes: the lab's wiretap, at a node's port on the cluster's bridge."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

from ambient.lab import Lab, linux
from ambient.lab.wiretap import Wiretap
from hack.kube import Cluster, layout


class _Underlay:
    """The one thing that a wiretap asks a lab for."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @contextlib.contextmanager
    def underlay(self, node: str) -> Iterator[str]:
        with linux.inside_netns(layout.NETNS_DIR / layout.CONTROL_PLANE):
            yield self._cluster.nodes[node].node.port


def tap(cluster: Cluster, node: str) -> Wiretap:
    """Listens in the `with` block; to be asked after it."""
    return Wiretap(cast(Lab, _Underlay(cluster)), node)
