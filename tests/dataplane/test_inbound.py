"""Who gets into a pod, over a tunnel and in the clear."""

from __future__ import annotations

import pytest

from ambient.dataplane import abi, inbound
from ambient.dataplane.questions import Peer, Plaintext, Request
from ambient.model.mesh import (
    Action,
    AuthorizationPolicy,
    Identity,
    IPAddress,
    Match,
    MtlsMode,
    PeerAuthentication,
    Rule,
    Service,
    address,
)
from ambient.model.world import diff
from tests.dataplane.worlds import (
    API_IP,
    CLIENT,
    CLIENT_IP,
    LEGACY_IP,
    NODE_1,
    NODE_2,
    WEB,
    WEB_IP,
    a_pod,
    a_service,
    a_world,
)

STRICT = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
ONLY_CLIENT = AuthorizationPolicy(
    namespace="shop",
    name="only-client",
    action=Action.ALLOW,
    rules=(Rule(clauses=((Match(principals=(CLIENT.principal,)),),)),),
)


@pytest.mark.parametrize(
    ("remote", "identity", "reason"),
    [
        (CLIENT_IP, CLIENT, ""),
        (API_IP, CLIENT, "source_mismatch"),
        (CLIENT_IP, Identity("cluster.local", "shop", "web"), "source_mismatch"),
        (CLIENT_IP, Identity("other.domain", "shop", "client"), "source_mismatch"),
        (address("10.9.9.9"), CLIENT, "unknown_source"),
    ],
    ids=["its own", "another pod's address", "another account", "another trust domain", "nobody's address"],
)
@pytest.mark.parametrize("outbound", [False, True], ids=["accepted", "dialled"])
def test_a_tunnels_certificate_must_belong_to_its_address(
    remote: IPAddress, identity: Identity, reason: str, outbound: bool
) -> None:
    outcome = inbound.judge_peer(Peer("shop/web", "uid-web", outbound, remote, identity), a_world())
    assert outcome.flow.reason == reason
    assert outcome.verdict is (abi.Verdict.REFUSE if reason else abi.Verdict.ACCEPT)


def a_request(**fields: object) -> Request:
    given = {"server": "shop/web", "uid": "uid-web", "peer": CLIENT, "source": CLIENT_IP, "to": WEB_IP, "port": 8080}
    return Request(**(given | fields))  # type: ignore[arg-type]


def test_an_allowed_request_carries_the_address_to_dial_and_shows_the_client() -> None:
    outcome = inbound.judge_request(a_request(), a_world(ONLY_CLIENT))
    assert outcome.verdict is abi.Verdict.CARRY
    assert outcome.show_client
    assert [(t.ip, t.port, t.tunnel) for t in outcome.targets] == [(WEB_IP, 8080, 0)]
    assert outcome.flow.rule == "AuthorizationPolicy shop/only-client rule 0"
    assert {"policy:shop", "wl:shop/web", f"ip:{CLIENT_IP}"} <= outcome.deps


@pytest.mark.parametrize(
    ("fields", "reason", "status"),
    [
        ({"to": API_IP}, "wrong_authority", 400),
        ({"to": address("127.0.0.1")}, "wrong_authority", 400),
        ({"source": API_IP}, "source_mismatch", 401),
        ({"source": address("10.9.9.9")}, "unknown_source", 401),
        ({"uid": "uid-of-its-predecessor"}, "unknown_workload", 503),
        ({"server": "shop/gone"}, "unknown_workload", 503),
        ({"peer": WEB, "source": WEB_IP}, "no_allow_matched", 401),
    ],
    ids=["another pod", "loopback", "another's address", "nobody's", "a namesake", "gone", "not allowed"],
)
def test_a_refused_request_has_its_reason_and_ztunnels_status(
    fields: dict[str, object], reason: str, status: int
) -> None:
    outcome = inbound.judge_request(a_request(**fields), a_world(ONLY_CLIENT))
    assert outcome.verdict is abi.Verdict.REFUSE
    assert not outcome.targets
    assert (outcome.flow.reason, outcome.status, outcome.flow.verdict) == (reason, status, "deny")


WEB_HOST = "web.shop.svc.cluster.local"
CANARY = a_service("canary", "web")


@pytest.mark.parametrize(
    ("services", "claimed", "recorded"),
    [
        ((), "", WEB_HOST),
        ((), WEB_HOST, WEB_HOST),
        ((), "evil.example", WEB_HOST),
        ((), "api.shop.svc.cluster.local", WEB_HOST),
        ((CANARY,), "", ""),
        ((CANARY,), "evil.example", ""),
        ((CANARY,), WEB_HOST, WEB_HOST),
        ((CANARY,), CANARY.hostname, CANARY.hostname),
    ],
    ids=[
        *("the only one", "claimed", "no service", "another's service"),
        *("two may be meant", "two, neither claimed", "one of two claimed", "the other claimed"),
    ],
)
def test_the_record_names_the_service_that_was_asked_for_if_the_world_has_it_so(
    services: tuple[Service, ...], claimed: str, recorded: str
) -> None:
    """`forwarded` is the peer's word: it chooses among what is true."""
    world = a_world(*services, a_service("api", "api"))
    outcome = inbound.judge_request(a_request(service=claimed), world)
    assert (outcome.flow.service, outcome.verdict) == (recorded, abi.Verdict.CARRY)
    clear = inbound.judge_plaintext(Plaintext("shop/web", "uid-web", LEGACY_IP, WEB_IP, 8080), world, frozenset())
    assert clear.flow.service == ("" if services else WEB_HOST)


def test_a_service_that_comes_or_goes_has_the_question_judged_again() -> None:
    world = a_world()
    outcome = inbound.judge_request(a_request(), world)
    assert diff(world, world.replace([CANARY], revision="2")).touched() & outcome.deps
    assert not diff(world, world.replace([a_pod("web-2", address("10.1.0.9"))], revision="2")).touched() & outcome.deps


def plaintext(source: IPAddress, *more: object, host: frozenset[IPAddress] = frozenset()) -> tuple[abi.Verdict, str]:
    outcome = inbound.judge_plaintext(Plaintext("shop/web", "uid-web", source, WEB_IP, 8080), a_world(*more), host)
    assert bool(outcome.targets) == (outcome.verdict is abi.Verdict.CARRY)
    return outcome.verdict, outcome.flow.reason


def test_plaintext_is_allowed_where_nothing_forbids_it_and_refused_under_strict() -> None:
    assert plaintext(address("10.9.9.9")) == (abi.Verdict.CARRY, "")
    assert plaintext(address("10.9.9.9"), STRICT) == (abi.Verdict.REFUSE, "strict_mtls")
    assert plaintext(CLIENT_IP, ONLY_CLIENT) == (abi.Verdict.REFUSE, "no_allow_matched")


def test_a_probe_from_this_node_passes_even_under_strict_and_what_else_comes_from_it_does_not() -> None:
    probed, gateway = a_pod("web", WEB_IP, "node-2", probe_ports=frozenset({8080})), address("169.254.1.1")
    assert plaintext(NODE_2, STRICT, probed) == (abi.Verdict.CARRY, "")
    assert plaintext(gateway, STRICT, probed, host=frozenset({gateway})) == (abi.Verdict.CARRY, "")
    assert plaintext(gateway, STRICT, probed) == (abi.Verdict.REFUSE, "strict_mtls")
    assert plaintext(NODE_1, STRICT, probed) == (abi.Verdict.REFUSE, "strict_mtls")
    assert plaintext(NODE_2, STRICT) == (abi.Verdict.REFUSE, "strict_mtls")
    assert plaintext(gateway, STRICT, host=frozenset({gateway})) == (abi.Verdict.REFUSE, "strict_mtls")


def test_a_probes_record_names_its_port_and_depends_on_the_pod() -> None:
    probed, gateway = a_pod("web", WEB_IP, "node-2", probe_ports=frozenset({8080})), address("169.254.1.1")
    question = Plaintext("shop/web", "uid-web", gateway, WEB_IP, 8080)
    outcome = inbound.judge_plaintext(question, a_world(probed), frozenset({gateway}))
    assert outcome.flow.rule == "node-local probe of port 8080 from 169.254.1.1, of Node node-2"
    assert {"wl:shop/web", f"ip:{gateway}"} <= outcome.deps


def test_plaintext_to_an_address_that_is_not_the_pods_is_refused() -> None:
    question = Plaintext("shop/web", "uid-web", CLIENT_IP, API_IP, 8080)
    assert inbound.judge_plaintext(question, a_world(), frozenset()).flow.reason == "wrong_address"
