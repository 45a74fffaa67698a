"""What an attacker may have: certificates of the mesh's own CA, and places in the network to use them from."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ambient.identity import svid
from ambient.identity.ca import EmbeddedCA
from ambient.model.mesh import TUNNEL_PORT, Identity
from tests.engine.h2peer import Peer, tls
from tests.engine.pki import Leaf
from tests.mesh.cluster import Mesh


def certificate(mesh: Mesh, account: str, *, ns: str = "shop", lifetime: timedelta = timedelta(hours=1)) -> Leaf:
    """A good certificate of a workload's identity, with its key."""
    return issued_by(mesh.layout.ca, account, ns=ns, lifetime=lifetime)


def issued_by(ca_dir: Path, account: str, *, ns: str = "shop", lifetime: timedelta = timedelta(hours=1)) -> Leaf:
    """The same, of the CA in this directory."""
    identity = Identity("cluster.local", ns, account)
    key, csr = svid.request(identity)
    ca = EmbeddedCA.open(ca_dir, "cluster.local", create=False)
    issued = asyncio.run(ca.issue(csr, identity, lifetime))
    own = svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=datetime.now(UTC))
    return Leaf((str(identity),), own.chain_pem, own.key_pem, own.roots_pem, b"", own.not_after)


def tunnel(mesh: Mesh, place: str, to: str, leaf: Leaf) -> Peer:
    """HBONE by the h2 library from a netns ("fabric", a node, a pod): past every hook, as a kernel attacker would.

    Raises OSError (ssl.SSLError is one) when the handshake is refused.
    """
    sock = mesh.inside(place, lambda: tls((to, TUNNEL_PORT), leaf.client_context()))
    return Peer(sock, client=True)


@contextlib.contextmanager
def owner_of(mesh: Mesh, ip: str) -> Iterator[None]:
    """The fabric has taken a pod's address over: node2 believes that node1's addresses are the fabric's (as after ARP
    spoofing), and the fabric answers for the pod."""
    fabric, node2 = mesh.facts["fabric"]["netns"], mesh.facts["nodes"]["node2"]["netns"]
    mac = _ip(fabric, "-o", "link", "show", "br0").partition("link/ether ")[2].split()[0]
    neighbour = [mesh.node_ip("node1"), "dev", "eth0"]
    _ip(fabric, "address", "add", f"{ip}/32", "dev", "lo")
    _ip(node2, "neighbour", "replace", *neighbour, "lladdr", mac, "nud", "permanent")
    try:
        yield
    finally:
        _ip(node2, "neighbour", "del", *neighbour)
        _ip(fabric, "address", "del", f"{ip}/32", "dev", "lo")


def _ip(netns: str, *words: str) -> str:
    return subprocess.run(["ip", "-n", netns, *words], check=True, capture_output=True, text=True).stdout
