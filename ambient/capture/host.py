"""The addresses of the network namespace this process runs in: the node's own. Only reads."""

from __future__ import annotations

from pyroute2 import IPRoute

from ambient.model.mesh import IPAddress, address


def addresses() -> frozenset[IPAddress]:
    """Every address of every interface, gateways of pod networks included: where kubelet's probes come from."""
    with IPRoute() as netlink:
        found = [message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in netlink.get_addr()]
    return frozenset(address(text) for text in found if text)
