"""What a sandbox knows goes before the World until the World says something new."""

from __future__ import annotations

from ambient.agent.cni import sandbox
from ambient.agent.cni.sandbox import Sandbox
from ambient.model.mesh import IPAddress, address
from ambient.model.world import World, diff

from .builders import FIRST, OTHER, SECOND, a_pod, a_world

V6 = address("fd00::1")


def arrived(world: World, *ips: IPAddress, before: Sandbox | None = None) -> Sandbox:
    return sandbox.arrived("c1", 7, ips, world.workloads["shop/web"], before)


def addresses(world: World, *sandboxes: Sandbox) -> tuple[IPAddress, ...]:
    return sandbox.overlay(world, sandboxes).workloads["shop/web"].addresses


def test_a_new_pod_has_its_address_before_the_world_says_so() -> None:
    world = a_world(a_pod())
    laid = sandbox.overlay(world, [arrived(world, FIRST, V6)])
    assert laid.workloads["shop/web"].addresses == (FIRST, V6)
    assert laid.workload_at(FIRST) == laid.workloads["shop/web"]
    assert laid.revision == world.revision


def test_what_the_world_says_then_is_the_truth() -> None:
    world = a_world(a_pod())
    known = arrived(world, FIRST, V6)
    for said in [(FIRST, V6), (V6, FIRST), (OTHER,)]:
        later = a_world(a_pod("web", *said))
        assert sandbox.overlay(later, [known]) is later


def test_a_world_that_forgets_the_address_for_a_moment_changes_nothing() -> None:
    world = a_world(a_pod())
    assert addresses(a_world(a_pod()), arrived(world, FIRST)) == (FIRST,)


def test_a_second_sandbox_replaces_the_address_that_the_world_still_has() -> None:
    world = a_world(a_pod("web", FIRST))
    second = arrived(world, SECOND)
    assert addresses(world, second) == (SECOND,)
    assert addresses(a_world(a_pod("web", SECOND)), second) == (SECOND,)


def test_late_news_of_a_sandbox_that_is_gone_is_no_news() -> None:
    nothing_yet = a_world(a_pod())
    first = arrived(nothing_yet, FIRST)
    gone = sandbox.departed(first, nothing_yet.workloads["shop/web"])
    assert addresses(nothing_yet, gone) == ()
    assert addresses(a_world(a_pod("web", FIRST)), gone) == (), "kubelet's word about it comes late"
    second = arrived(nothing_yet, SECOND, before=gone)
    assert addresses(a_world(a_pod("web", FIRST)), second) == (SECOND,)


def test_a_second_sandbox_may_have_the_first_ones_address() -> None:
    world = a_world(a_pod("web", FIRST))
    gone = sandbox.departed(arrived(world, FIRST), world.workloads["shop/web"])
    again = arrived(world, FIRST, before=gone)
    assert addresses(world, again) == (FIRST,)
    assert addresses(a_world(a_pod("web", OTHER)), again) == (OTHER,)


def test_a_namesake_is_another_pod() -> None:
    known = arrived(a_world(a_pod()), FIRST)
    namesake = a_world(a_pod(uid="another"))
    assert sandbox.overlay(namesake, [known]) is namesake
    assert sandbox.is_over(namesake, known)
    assert sandbox.is_over(a_world(), known)
    assert not sandbox.is_over(a_world(a_pod()), known)


def test_what_is_laid_over_costs_what_differs() -> None:
    world = a_world(a_pod(), *(a_pod(f"p{number}") for number in range(50)))
    changes = diff(world, sandbox.overlay(world, [arrived(world, FIRST)]))
    assert (changes.workloads, changes.addresses) == ({"shop/web"}, {FIRST})


def test_a_gone_pods_address_is_free_for_the_next_at_once() -> None:
    world = a_world(a_pod("web", FIRST), a_pod("next"))
    gone = sandbox.departed(arrived(world, FIRST), world.workloads["shop/web"])
    following = sandbox.arrived("c2", 8, (FIRST,), world.workloads["shop/next"], None)
    laid = sandbox.overlay(world, [gone, following])
    assert laid.workload_at(FIRST) == laid.workloads["shop/next"]
