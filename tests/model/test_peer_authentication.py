"""decide() and PeerAuthentication: who must come with mutual TLS, and what the pod's own node may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.model import mesh, policy
from ambient.model.mesh import MtlsMode
from ambient.model.world import World, diff

from .builders import (
    IP,
    ROOT,
    a_peer_authentication,
    a_pod,
    a_world,
)
from .judging import (
    ALL,
    ALLOW_ALL,
    ALLOW_NOBODY,
    ALLOW_NOTHING,
    CART,
    CLIENT,
    CLIENT_IP,
    FAR_NODE,
    NODE,
    OTHER,
    SERVER,
    allowed,
    judge,
)

STRICT = a_peer_authentication("shop/strict", "STRICT")


def test_strict_refuses_plaintext_and_takes_mutual_tls() -> None:
    verdict = judge(STRICT, ALLOW_ALL, peer=None)
    assert (verdict.rule, verdict.reason) == ("PeerAuthentication shop/strict", "strict_mtls")
    assert allowed(STRICT)


@pytest.mark.parametrize("mode", ["PERMISSIVE", "DISABLE", None])
def test_other_modes_take_both(mode: str | None) -> None:
    written = a_peer_authentication("shop/p", mode)
    assert allowed(written)
    assert allowed(written, peer=None)


def test_plaintext_that_is_permitted_still_meets_the_policies() -> None:
    assert judge(ALLOW_NOBODY, peer=None).reason == "no_allow_matched"


PROBED = replace(SERVER, probe_ports=frozenset({8080, 9000}))
GATEWAY = "169.254.1.1"  # the node's, and no Node's in the World


@pytest.mark.parametrize(
    ("source", "port", "more", "may"),
    [
        ("10.0.0.1", 8080, {}, True),
        ("10.0.0.1", 9000, {}, True),
        (GATEWAY, 8080, {"node_local": True}, True),
        ("10.0.0.1", 8081, {}, False),
        (GATEWAY, 8081, {"node_local": True}, False),
        (GATEWAY, 8080, {}, False),
        ("10.0.0.2", 8080, {}, False),
        ("10.1.0.2", 8080, {}, False),
    ],
    ids=[
        "its own node",
        "another probe",
        "its node's gateway",
        "no probe's port",
        "the gateway to no probe's port",
        "another node's gateway",
        "another node",
        "a pod of its node",
    ],
)
def test_what_the_pods_own_node_sends_to_the_ports_of_its_probes_passes_strict_and_policies(
    source: str, port: int, more: dict[str, bool], may: bool
) -> None:
    world = a_world(PROBED, CLIENT, OTHER, NODE, FAR_NODE, STRICT, ALLOW_NOTHING)
    verdict = policy.decide(world, PROBED, peer=None, source=IP(source), to=IP("10.1.0.1"), port=port, **more)
    assert isinstance(verdict, policy.Allow) is may
    assert verdict.rule.startswith(f"node-local probe of port {port} from {source}") is may


def test_to_other_ports_the_pods_own_node_is_a_client_without_identity() -> None:
    assert allowed(peer=None, source="10.0.0.1")
    assert judge(ALLOW_NOTHING, peer=None, source="10.0.0.1").reason == "no_allow_matched"
    refused = judge(STRICT, peer=None, source="10.0.0.1")
    assert refused.reason == "strict_mtls"
    assert refused.why.endswith("its own Node may call the ports that its probes name, of which there are none")


def test_a_probe_that_comes_or_goes_is_a_reason_to_judge_again() -> None:
    before, after = a_world(*ALL), a_world(PROBED, CLIENT, OTHER, NODE, FAR_NODE)
    verdict = policy.decide(before, SERVER, peer=None, source=IP("10.0.0.1"), to=IP("10.1.0.1"), port=8080)
    assert verdict.deps & diff(before, after).touched()


def test_an_identity_from_its_own_node_is_judged_as_any_on_a_probes_port() -> None:
    world = a_world(PROBED, CLIENT, NODE, ALLOW_NOTHING)
    verdict = policy.decide(world, PROBED, peer=CART, source=IP(CLIENT_IP), to=IP("10.1.0.1"), port=8080)
    assert verdict.reason == "no_allow_matched"


def mode_of(
    *written: mesh.PeerAuthentication, port: int = 8080, server: mesh.Workload = SERVER
) -> tuple[MtlsMode, str]:
    world: World = a_world(*ALL, *written)
    return policy.mtls_mode(world, server, port)


MESH = a_peer_authentication(ROOT + "/mesh", "STRICT")
SPACE = a_peer_authentication("shop/space", "PERMISSIVE")
POD = a_peer_authentication("shop/pod", "STRICT", selector={"app": "web"})
PORTS = a_peer_authentication("shop/ports", selector={"app": "web"}, port_modes={8080: MtlsMode.DISABLE})
NEAREST = {
    "nothing": ((), "PERMISSIVE", "no PeerAuthentication"),
    "mesh": ((MESH,), "STRICT", f"PeerAuthentication {ROOT}/mesh"),
    "namespace before mesh": ((MESH, SPACE), "PERMISSIVE", "PeerAuthentication shop/space"),
    "workload before namespace": ((MESH, SPACE, POD), "STRICT", "PeerAuthentication shop/pod"),
    "port before workload": (
        (MESH, replace(PORTS, mode=MtlsMode.STRICT)),
        "DISABLE",
        "PeerAuthentication shop/ports port 8080",
    ),
    "another port: the workload's": (
        (MESH, replace(PORTS, mode=MtlsMode.PERMISSIVE, port_modes={80: MtlsMode.DISABLE})),
        "PERMISSIVE",
        "PeerAuthentication shop/ports",
    ),
    "another port, workload unset: the namespace's": (
        (MESH, SPACE, replace(PORTS, port_modes={80: MtlsMode.STRICT})),
        "PERMISSIVE",
        "PeerAuthentication shop/space",
    ),
    "namespace unset: mesh": ((MESH, replace(SPACE, mode=None)), "STRICT", f"PeerAuthentication {ROOT}/mesh"),
    "workload unset: namespace": ((SPACE, replace(POD, mode=None)), "PERMISSIVE", "PeerAuthentication shop/space"),
    "a selector that does not cover the pod": (
        (SPACE, replace(POD, selector={"app": "db"})),
        "PERMISSIVE",
        "PeerAuthentication shop/space",
    ),
    "a selector in the root namespace counts nowhere": (
        (replace(POD, namespace=ROOT),),
        "PERMISSIVE",
        "no PeerAuthentication",
    ),
    "another namespace's": (
        (replace(SPACE, namespace="back", mode=MtlsMode.STRICT),),
        "PERMISSIVE",
        "no PeerAuthentication",
    ),
    "of two, the older": (
        (replace(SPACE, created="2026-02-01T00:00:00Z"), replace(STRICT, created="2026-01-01T00:00:00Z")),
        "STRICT",
        "PeerAuthentication shop/strict",
    ),
    "of two of one age, the first by name": ((STRICT, SPACE), "PERMISSIVE", "PeerAuthentication shop/space"),
    "of two for the workload, the older, ports and all": (
        (replace(POD, created="2026-01-01T00:00:00Z"), replace(PORTS, created="2026-02-01T00:00:00Z")),
        "STRICT",
        "PeerAuthentication shop/pod",
    ),
}


@pytest.mark.parametrize(("written", "mode", "said_by"), NEAREST.values(), ids=NEAREST.keys())
def test_the_nearest_mode_that_is_set_holds(
    written: tuple[mesh.PeerAuthentication, ...], mode: str, said_by: str
) -> None:
    assert mode_of(*written) == (MtlsMode[mode], said_by)


def test_the_inherited_mode_is_what_no_selector_says() -> None:
    world = a_world(
        a_peer_authentication("shop/web", "PERMISSIVE", selector={"app": "web"}),
        a_peer_authentication("shop/all", "STRICT"),
        a_peer_authentication(f"{ROOT}/mesh", "DISABLE"),
        SERVER,
    )
    assert policy.inherited_mtls_mode(world, "shop") == (MtlsMode.STRICT, "PeerAuthentication shop/all")
    assert policy.inherited_mtls_mode(world, "back") == (MtlsMode.DISABLE, f"PeerAuthentication {ROOT}/mesh")
    assert policy.inherited_mtls_mode(a_world(), "back") == (MtlsMode.PERMISSIVE, "no PeerAuthentication")
    assert policy.workload_peer_authentication(world, SERVER) == world.peer_authentications["shop/web"]
    assert policy.workload_peer_authentication(world, CLIENT) is None


def test_pods_of_the_root_namespace_have_the_meshs_mode() -> None:
    server = a_pod(ROOT + "/agent", "10.1.0.9", labels={"app": "web"})
    assert mode_of(MESH, server=server) == (MtlsMode.STRICT, f"PeerAuthentication {ROOT}/mesh")
