"""An attacker on the fabric, with scapy, other pods' addresses and stolen certificates, gets nowhere.

Where it makes sense the same attack is tried with the right means first: it would have worked.
"""

from __future__ import annotations

import socket
import subprocess

import pytest
from scapy.all import IP, TCP, AsyncSniffer, Ether, IPv6, Raw

from tests.mesh import stolen
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import Manifest, mtls, pod, server, service, shop
from tests.mesh.waiting import eventually

pytestmark = pytest.mark.kernel

MANIFESTS: list[Manifest] = shop(
    mtls("STRICT", name="web", app="web"),
    server("open", "node2"),
    pod("other", "node1"),
    service("open"),
)
MARK = "let me in"
ECHO = f"echo {MARK}\n".encode()
FORGED_MAC = "02:00:00:00:00:66"


def send(mesh: Mesh, place: str, interface: str, frames: list[Ether]) -> None:
    """Onto the wire as they are; scapy's own sending looks for interfaces in the netns it was imported in."""
    with mesh.inside(place, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind((interface, 0))
        for frame in frames:
            sock.send(bytes(frame))


def seen(mesh: Mesh, app: str = "shop/web") -> list[str]:
    return [row["text"] for row in mesh.events(app, "line")]


def test_the_fabric_knocks_at_a_strict_port_in_vain(mesh: Mesh) -> None:
    assert mesh.knock(mesh.ip("shop/web"), 8080, ECHO) == b""
    row = mesh.record("destination", verdict="deny")
    assert (row["reason"], row["source_address"].rpartition(":")[0]) == ("strict_mtls", "172.18.0.1")
    assert seen(mesh) == []


def test_the_owner_of_a_members_address_has_not_its_identity(mesh: Mesh) -> None:
    """Plaintext from the client's address, as after ARP spoofing."""
    client = mesh.ip("shop/client")
    with stolen.owner_of(mesh, client):
        for app, welcome in (("shop/open", True), ("shop/web", False)):
            answer = mesh.knock(mesh.ip(app), 8080, ECHO, source=client)
            assert answer == (f"{MARK}\n".encode() if welcome else b""), "PERMISSIVE shows that the attack is real"
    assert seen(mesh) == []
    assert mesh.record("destination", verdict="deny")["source_principal"] == ""
    assert mesh.record("destination", verdict="allow")["source_principal"] == ""


@pytest.mark.parametrize("forged", ["a pod's", "the node's"])
@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_blind_segments_with_a_forged_source_open_nothing(mesh: Mesh, forged: str, version: int) -> None:
    source = mesh.ip("shop/client", version) if forged == "a pod's" else mesh.node_ip("node2", version)
    network = (IP if version == 4 else IPv6)(src=source, dst=mesh.ip("shop/web", version))
    frames, mac = [], mesh.mac("node2")
    for port in range(40_000, 40_020):
        frames.append(Ether(src=FORGED_MAC, dst=mac) / network / TCP(sport=port, dport=8080, seq=1, flags="S"))
        # the handshake's end as a guess: what a SYN cookie would have to be
        frames.append(
            Ether(src=FORGED_MAC, dst=mac)
            / network
            / TCP(sport=port, dport=8080, seq=2, ack=port, flags="PA")
            / Raw(ECHO)
        )
    send(mesh, "fabric", "br0", frames)
    assert mesh.puppet("shop/client").ask("web", text="echo after them").reply == "after them"
    assert seen(mesh) == ["echo after them"]
    assert not [row for row in mesh.records() if row["verdict"] == "allow" and row["path"] == "plaintext"]


@pytest.mark.parametrize(
    ("place", "account", "reason"),
    [
        ("shop/client", "client", ""),
        ("shop/client", "near", "source_mismatch"),
        ("shop/other", "client", "source_mismatch"),
        ("outside/stranger", "client", "source_mismatch"),
        ("fabric", "client", "unknown_source"),
        ("node1", "client", "unknown_source"),
    ],
    ids=["its owner", "another's", "in another pod", "in a stranger's pod", "on the fabric", "on the node"],
)
def test_a_certificate_is_worth_something_only_at_its_owners_address(
    mesh: Mesh, place: str, account: str, reason: str
) -> None:
    to = mesh.ip("shop/web")
    with stolen.tunnel(mesh, place, to, stolen.certificate(mesh, account)) as peer:
        try:
            stream = peer.ask(f"{to}:8080")
        except (OSError, AssertionError):
            assert reason, "the owner was refused"
        else:
            assert (stream.headers.get(":status") == "200") == (not reason), stream
            if not reason:
                peer.send(stream, b"who\n")
                peer.until(lambda: b"\n" in stream.data)
                assert mesh.ip("shop/client").encode() in stream.data
    if reason:
        assert mesh.record("destination", verdict="deny")["reason"] == reason
        # A stranger's question waits for news of its address: a probe of kubelet may come in meanwhile.
        probes = f"{mesh.node_ip('node2')}:"
        assert [row for row in mesh.events("shop/web", "accept") if not row["peer"].startswith(probes)] == []


AUTHORITIES = {
    "another pod": ("near", 8080, "400"),
    "another pod's tunnel port": ("near", 15008, "400"),
    "its own tunnel port": ("web", 15008, ""),
    "loopback": ("127.0.0.1", 8080, "400"),
    "a name": ("web.shop", 8080, "400"),
    "nothing": ("", 0, "400"),
}


@pytest.mark.parametrize("case", AUTHORITIES)
def test_a_tunnel_leads_to_its_own_pod_only(mesh: Mesh, case: str) -> None:
    host, port, status = AUTHORITIES[case]
    host = mesh.ip(f"shop/{host}") if host in ("near", "web") else host
    to = mesh.ip("shop/web")
    with stolen.tunnel(mesh, "shop/client", to, stolen.certificate(mesh, "client")) as peer:
        stream = peer.ask(f"{host}:{port}" if host else "")
        assert stream.headers.get(":status", "") != "200", stream
        assert not status or stream.reset is not None or stream.headers[":status"] == status, stream
        good = peer.ask(f"{to}:8080")
        assert good.headers[":status"] == "200", "and the tunnel's other streams go on"
    assert mesh.events("shop/near", "accept") == []


def test_the_engines_own_ports_are_not_to_be_had_from_outside(mesh: Mesh) -> None:
    """They are bound to loopback in the pod's netns: neither its address nor forged loopback packets lead there."""
    netns = mesh.facts["pods"]["shop/web"]["netns"]
    listing = subprocess.run(
        ["ip", "netns", "exec", netns, "ss", "-Hltn"], check=True, capture_output=True, text=True
    ).stdout
    ours = sorted({int(line.split()[3].rpartition(":")[2]) for line in listing.splitlines()} - {8080, 8081, 8082})
    assert len(ours) >= 3, listing
    for port in ours:
        assert mesh.knock(mesh.ip("shop/web"), port, ECHO) == b""
    link, mac = mesh.facts["pods"]["shop/web"]["link"], mesh.pod_mac("shop/web")

    def inject() -> list[object]:
        sniffer = AsyncSniffer(iface=link, filter="tcp and (src net 127.0.0.0/8 or src host ::1)", store=True)
        sniffer.start()
        eventually("the sniffer runs", lambda: getattr(sniffer, "running", False))
        frames: list[Ether] = []
        for port in ours:
            for network in (IP(src="172.18.0.1", dst="127.0.0.1"), IPv6(src="fd00:18::1", dst="::1")):
                frames.append(Ether(src=FORGED_MAC, dst=mac) / network / TCP(sport=40_000, dport=port, flags="S"))
        send(mesh, "node2", link, frames)
        assert not mesh.puppet("shop/client").ask(mesh.ip("shop/web"), 8080).error  # what was to come has come
        return [each for each in sniffer.stop() or [] if each[Ether].src == mac]

    assert mesh.inside("node2", inject) == []


def test_garbage_at_the_tunnel_port_is_refused_and_counted(mesh: Mesh) -> None:
    mesh.knock(mesh.ip("shop/web"), 15008, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    row = mesh.record("destination", end="handshake")
    assert row["verdict"] == "deny"
    assert seen(mesh) == []
