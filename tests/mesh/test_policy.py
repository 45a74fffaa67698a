"""What policies forbid does not happen, what they allow does, and the record names the rule."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ambient.lab import NotReady
from tests import slowness
from tests.mesh.cluster import Mesh
from tests.mesh.manifests import (
    Manifest,
    enrolled,
    mtls,
    pod,
    policy,
    principal,
    server,
    service,
    shop,
    traffic,
)
from tests.mesh.waiting import eventually
from tests.mesh.wire import Wire

pytestmark = pytest.mark.kernel

MANIFESTS = shop(
    pod("other", "node1"),
    enrolled("locked", require_mtls="true"),
    pod("careful", "node1", ns="locked"),
    enrolled("registry", outbound="registry-only"),
    pod("local", "node1", ns="registry"),
    server("plain", "node2", ns="outside"),
    service("plain", ns="outside"),
)

FABRIC = "172.18.0.1"  # outside of every node: nobody of the mesh
FROM_CLIENT = [{"from": [{"source": {"principals": [principal("client")]}}]}]
TO_8081 = [{"to": [{"operation": {"ports": ["8081"]}}]}]

# name, policies, and what they make of client:8080, client:8081, other:8080
CASES: list[tuple[str, list[Manifest], tuple[bool, bool, bool]]] = [
    ("an ALLOW lets in whom it names", [policy("p", app="web", rules=FROM_CLIENT)], (True, True, False)),
    ("a DENY keeps out whom it names", [policy("p", "DENY", app="web", rules=FROM_CLIENT)], (False, False, True)),
    ("a port is a condition", [policy("p", "DENY", app="web", rules=TO_8081)], (True, False, True)),
    ("no rule allows nobody", [policy("p", app="web")], (False, False, False)),
    ("an empty DENY denies nobody", [policy("p", "DENY", app="web")], (True, True, True)),
    (
        "DENY goes before ALLOW",
        [policy("a", app="web", rules=FROM_CLIENT), policy("d", "DENY", app="web", rules=TO_8081)],
        (True, False, False),
    ),
    (
        "the root namespace speaks for all",
        [policy("p", "DENY", ns="ambient-system", rules=TO_8081)],
        (True, False, True),
    ),
    ("another selector is not meant", [policy("p", app="api")], (True, True, True)),
]


@pytest.mark.parametrize(("policies", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_policies(mesh: Mesh, wire: Wire, policies: list[Manifest], expected: tuple[bool, bool, bool]) -> None:
    with mesh.having(*policies):
        to = mesh.ip("shop/web")
        asked = [("client", 8080), ("client", 8081), ("other", 8080)]
        answers = [mesh.puppet(f"shop/{who}").ask(to, port, f"echo {wire.secret()}") for who, port in asked]
        assert [not answer.error for answer in answers] == list(expected), answers
        assert all(answer.was_refused for answer, allowed in zip(answers, expected, strict=True) if not allowed)
        for allowed, (who, port) in zip(expected, asked, strict=True):
            row = mesh.record(
                "destination",
                source_pod=who,
                destination_address=f"{to}:{port}",
                verdict="allow" if allowed else "deny",
            )
            assert allowed or row["response_flags"] == "DENY", row
            assert mesh.record("source", trace_id=row["trace_id"])["source_pod"] == who
        assert len(mesh.events("shop/web", "line")) == sum(expected), "what is refused never reaches the app"


def test_a_refusal_names_its_rule_on_the_servers_side(mesh: Mesh) -> None:
    with mesh.having(policy("not-you", "DENY", app="web", rules=FROM_CLIENT)):
        answer = mesh.puppet("shop/client").ask("web")
        assert answer.was_refused, answer
        row = mesh.record("destination", verdict="deny")
        assert "AuthorizationPolicy shop/not-you rule 0" in row["rule"]
        assert row["reason"] == "denied_by_policy"
        source = mesh.record("source", trace_id=row["trace_id"])
        assert (source["end"], source["error"], source["response_flags"]) == ("peer_refused", 401, "DENY")
    assert mesh.puppet("shop/client").ask("web").error == ""


def test_plaintext_from_outside_gets_in_only_while_it_is_permitted(mesh: Mesh) -> None:
    stranger = mesh.puppet("outside/stranger")
    assert stranger.ask("web.shop").error == ""
    with mesh.having(mtls("STRICT")):
        mesh.mark()
        answer = stranger.ask("web.shop")
        assert answer.was_refused, answer
        row = mesh.record("destination", verdict="deny")
        assert (row["reason"], row["path"]) == ("strict_mtls", "plaintext")
        assert "PeerAuthentication shop/default" in row["rule"]
        assert mesh.events("shop/web", "line") == []
        assert mesh.puppet("shop/client").ask("web").error == "", "members are not concerned"
    assert stranger.ask("web.shop").error == ""


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ([mtls("STRICT"), mtls("PERMISSIVE", name="web", app="web")], (True, True)),
        ([mtls("STRICT", name="web", app="web", ports={8081: "PERMISSIVE"})], (False, True)),
        ([mtls("STRICT", ns="ambient-system")], (False, False)),
        ([mtls("STRICT", ns="ambient-system"), mtls("DISABLE")], (True, True)),
    ],
    ids=["workload outweighs namespace", "port outweighs workload", "mesh-wide", "namespace outweighs mesh"],
)
def test_the_nearest_peer_authentication_holds(mesh: Mesh, modes: list[Manifest], expected: tuple[bool, bool]) -> None:
    stranger = mesh.puppet("outside/stranger")
    with mesh.having(*modes):
        answers = [stranger.ask(mesh.ip("shop/web"), port) for port in (8080, 8081)]
        assert [not answer.error for answer in answers] == list(expected), answers


def test_probes_pass_under_strict(mesh: Mesh) -> None:
    def probes() -> int:
        node = mesh.node_ip("node2")
        return sum(row["peer"].startswith(f"{node}:") for row in mesh.events("shop/web", "accept"))

    with mesh.having(mtls("STRICT"), policy("nobody", app="web")):
        assert mesh.puppet("outside/stranger").ask(mesh.ip("shop/web"), 8080).was_refused
        eventually("a probe of kubelet passes", probes, within=8)
        mesh.wait(timeout=5)
        assert mesh.pod("shop/web")["ready"]
        assert mesh.metrics("node2")['ambient_bpf_verdicts_total{verdict="lookup_node"}'] >= probes()


def test_a_probe_says_what_the_app_says_not_what_the_mesh_does(mesh: Mesh) -> None:
    """One that connects and nothing more: an engine that took it would make ready what does not listen yet."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    deaf = pod("deaf", "node2", probe=probe)
    try:
        with pytest.raises(NotReady, match=r"probe failed .* Connect call failed"):
            mesh.apply(deaf, timeout=2)
        assert mesh.agent("node2")["pods"]["shop/deaf"]["captured"]
    finally:
        mesh.delete(deaf)


def test_under_strict_the_node_itself_reaches_the_port_of_a_probe_and_no_other(mesh: Mesh) -> None:
    def asked(port: int) -> bytes:
        """What web says to a process on its node's own network; nothing when it is refused."""
        with (
            contextlib.suppress(ConnectionResetError),
            mesh.inside(
                "node2", lambda: socket.create_connection((mesh.ip("shop/web"), port), slowness.seconds(5))
            ) as sock,
        ):
            sock.sendall(b"echo hello\n")
            return bytes(sock.recv(100))
        return b""

    assert [asked(port) for port in (8080, 8081)] == [b"hello\n"] * 2
    with mesh.having(mtls("STRICT")):
        mesh.mark()
        assert [asked(port) for port in (8080, 8081)] == [b"hello\n", b""]
        record = mesh.record("destination", verdict="deny")
    assert record["reason"] == "strict_mtls"
    assert record["rule"].endswith("its own Node may call the ports that its probes name, 8080")
    with mesh.having(policy("nobody", app="web")):
        assert [asked(port) for port in (8080, 8081)] == [b"hello\n", b""]


def test_a_namespace_that_requires_mtls_says_nothing_in_the_clear(mesh: Mesh) -> None:
    careful = mesh.puppet("locked/careful")
    with Wire(mesh, ["locked/careful", "shop/web", "outside/plain"]) as wire:
        word = wire.secret()
        assert careful.ask("web.shop", text=f"echo {word}").reply == word
        for to, port in (("plain.outside", 80), (mesh.ip("outside/plain"), 8080)):
            assert careful.ask(to, port, f"echo {wire.secret()}").was_refused
            mesh.record("source", reason="mtls_required")
            mesh.mark()
    assert wire.findings() == []


def test_registry_only_lets_nobody_out_to_the_unknown(mesh: Mesh) -> None:
    local = mesh.puppet("registry/local")
    with mesh.listening("fabric", (FABRIC, 8099)) as strangers:
        assert local.ask(FABRIC, 8099, timeout=3).was_refused
        assert mesh.record("source")["reason"] == "not_in_registry"
        assert strangers() == 0
        assert local.ask("web.shop").error == ""
        assert local.ask("plain.outside").error == ""
        # the same from a namespace without the label
        mesh.puppet("shop/client").open("out", FABRIC, 8099)
        eventually("a connection to the unknown", strangers)
        mesh.puppet("shop/client").do("close", name="out")


def test_a_dry_run_only_says_what_it_would_do(mesh: Mesh) -> None:
    trial = policy("trial", "DENY", app="web", rules=FROM_CLIENT)
    trial["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    with mesh.having(trial):
        assert mesh.puppet("shop/client").ask("web").error == ""
        assert "trial rule 0 would deny" in mesh.record("destination")["rule"]


ONE_WAY_OUT = traffic(
    "one-way-out",
    app="client",
    mtls="Required",
    unknownDestinations="Refuse",
    allowed=[{"cidrs": [f"{FABRIC}/32"], "ports": [8098]}],
)


def test_a_traffic_policy_holds_for_whom_it_selects_but_for_its_exceptions(mesh: Mesh) -> None:
    client, other = mesh.puppet("shop/client"), mesh.puppet("shop/other")
    with (
        mesh.having(ONE_WAY_OUT),
        mesh.listening("fabric", (FABRIC, 8098)) as one,
        mesh.listening("fabric", (FABRIC, 8099)) as any_other,
    ):
        assert client.ask(FABRIC, 8099).was_refused
        refused = mesh.record("source", reason="not_in_registry")
        assert "TrafficPolicy shop/one-way-out allows only those and what it lists" in refused["rule"]
        assert client.ask("plain.outside").was_refused
        assert "TrafficPolicy shop/one-way-out" in mesh.record("source", reason="mtls_required")["rule"]
        assert client.ask("web").error == ""
        assert any_other() == 0
        for puppet, port, came in ((client, 8098, one), (other, 8099, any_other)):
            puppet.open("out", FABRIC, port)
            eventually("a connection to the unknown", came)
            puppet.do("close", name="out")
        assert other.ask("plain.outside").error == ""
    assert client.ask("plain.outside").error == ""


def test_a_traffic_policy_cuts_what_it_refuses_from_now_on(mesh: Mesh) -> None:
    client = mesh.puppet("shop/client")
    assert client.open("old", mesh.ip("outside/plain"), 8080).error == ""
    assert client.say("old", "echo before").error == ""
    with mesh.having(ONE_WAY_OUT):
        eventually("it is cut", lambda: client.say("old", "echo after").error)
        assert mesh.record("source", end="cut")["reason"] == "mtls_required"
