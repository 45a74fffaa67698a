"""Plans turned into targets."""

from __future__ import annotations

import random

from ambient.dataplane import abi, outbound
from ambient.dataplane.pods import context_id, tunnel_id
from ambient.dataplane.questions import Outbound, Outcome
from ambient.model.mesh import IPAddress, Namespace, address
from ambient.model.world import World
from tests.dataplane.worlds import CLIENT, LEGACY_IP, WEB, WEB_IP, WEB_VIP, a_pod, a_world


def judge(world: World, to: IPAddress, port: int, uid: str = "uid-client") -> Outcome:
    question = Outbound("shop/client", uid, 100, to, port)
    return outbound.judge(question, world, avoid=(), rng=random.Random(1))


def test_a_service_becomes_tunnels_to_its_endpoints_with_the_clients_certificate() -> None:
    outcome = judge(a_world(), WEB_VIP, 80)
    (target,) = outcome.targets
    assert outcome.verdict is abi.Verdict.CARRY
    assert (target.ip, target.port) == (WEB_IP, 8080)
    assert target.tunnel == tunnel_id(100, WEB_IP, WEB)
    assert target.context == context_id(CLIENT)
    assert (outcome.host, outcome.flow.service) == ("web.shop.svc.cluster.local",) * 2
    assert (outcome.flow.path, outcome.flow.security) == ("tunnel", "mutual_tls")
    assert outcome.flow.source.principal == CLIENT.principal
    assert outcome.flow.destination.principal == WEB.principal


def test_a_pod_that_is_not_enrolled_is_dialled_in_the_clear() -> None:
    outcome = judge(a_world(), LEGACY_IP, 9000)
    (target,) = outcome.targets
    assert (target.ip, target.port, target.tunnel, target.context) == (LEGACY_IP, 9000, 0, 0)
    assert (outcome.flow.path, outcome.flow.security) == ("plaintext", "unknown")


def test_what_the_mesh_does_not_know_passes_through() -> None:
    outcome = judge(a_world(), address("203.0.113.9"), 443)
    assert outcome.verdict is abi.Verdict.CARRY
    assert [(t.ip, t.port, t.tunnel) for t in outcome.targets] == [(address("203.0.113.9"), 443, 0)]


def test_a_refused_plan_is_a_refusal_with_its_sentence() -> None:
    world = a_world(Namespace(name="shop", enrolled=True, require_mtls=True))
    outcome = judge(world, LEGACY_IP, 9000)
    assert outcome.verdict is abi.Verdict.REFUSE
    assert (outcome.flow.verdict, outcome.flow.reason) == ("deny", "mtls_required")
    assert "require" in outcome.flow.rule
    assert outcome.flow.path == "none", "it went nowhere"


def test_a_client_that_left_the_world_or_was_replaced_by_a_namesake_is_refused() -> None:
    assert judge(a_world(without="client"), WEB_VIP, 80).flow.reason == "unknown_workload"
    assert judge(a_world(), WEB_VIP, 80, uid="another").flow.reason == "unknown_workload"


def many(count: int) -> World:
    return a_world(
        *(a_pod(f"web-{n}", address(f"10.2.0.{n}"), "node-2", service_account="web") for n in range(1, count + 1))
    )


def labelled(count: int) -> World:
    from dataclasses import replace

    world = many(count)
    pods = [replace(w, labels={"app": "web"}) for w in world.workloads.values() if w.name.startswith("web-")]
    return world.replace(pods, revision="2")


def test_a_large_service_is_sampled_and_the_record_names_what_the_endpoints_share() -> None:
    outcome = judge(labelled(40), WEB_VIP, 80)
    assert outcome.sampled
    assert len(outcome.targets) == len(set(outcome.targets)) == abi.CHOICES_MAX
    assert outcome.flow.destination.principal == WEB.principal
    assert outcome.flow.destination.workload == ""


def test_sampling_reaches_every_endpoint_in_time() -> None:
    world, rng = labelled(40), random.Random(7)
    seen = {
        target.ip
        for _ in range(40)
        for target in outbound.judge(
            Outbound("shop/client", "uid-client", 100, WEB_VIP, 80), world, avoid=(), rng=rng
        ).targets
    }
    assert len(seen) == 41
