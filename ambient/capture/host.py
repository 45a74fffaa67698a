"""The addresses of the network namespace this process runs in: the node's own. Only reads."""

from __future__ import annotations

from ambient.capture import routing
from ambient.capture.rtnetlink import Rtnetlink
from ambient.model.mesh import IPAddress


def addresses() -> frozenset[IPAddress]:
    """Every address of every interface, gateways of pod networks included: where kubelet's probes come from."""
    with Rtnetlink() as kernel:
        return routing.addresses_here(kernel)
