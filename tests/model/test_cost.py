"""The next World costs what changed, not what there is: counted, in a small mesh and in one sixteen times as large."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest

from ambient.model import mesh
from ambient.model.world import World
from tests import costs

from .builders import a_node, a_pod, a_policy, a_service, a_world

SMALL, LARGE = 200, 3_200  # pods
CHANGES = 40


def a_mesh(pods: int) -> World:
    """Ten pods a namespace, five a Service, a policy for ten."""
    nodes = [a_node(f"n{number}", f"10.0.{number // 256}.{number % 256}") for number in range(pods // 20)]
    services = [
        a_service(f"ns{number // 2}/app{number}", f"10.96.{number // 256}.{number % 256}")
        for number in range(pods // 5)
    ]
    policies = [a_policy(f"ns{number}/policy", selector={"app": f"app{number}"}) for number in range(pods // 10)]
    return a_world(*nodes, *services, *policies, *(pod(number, pods) for number in range(pods)))


def key(number: int) -> str:
    return f"ns{number // 10}/pod{number}"


def pod(number: int, pods: int) -> mesh.Workload:
    labels = {"app": f"app{number // 5}", "team": "t"}
    address = f"10.{1 + number // 65536}.{number // 256 % 256}.{number % 256}"
    return a_pod(key(number), address, labels=labels, node=f"n{number % (pods // 20)}")


def becomes_unready(world: World, number: int) -> World:
    return world.replace([replace(world.workloads[key(number)], ready=False)], revision="r")


def leaves(world: World, number: int) -> World:
    return world.replace((), [(mesh.Workload, key(number))], revision="r")


def comes(world: World, number: int) -> World:
    like = world.workloads[key(number)]
    addresses = (like.addresses[0] + (100 << 16),)
    return world.replace([replace(like, name=f"new{number}", addresses=addresses)], revision="r")


def policy_changes(world: World, number: int) -> World:
    policies = list(world.policies_in(f"ns{number // 10}"))
    return world.replace([replace(policies[0], selector={"app": f"new{number}"})], revision="r")


def service_changes(world: World, number: int) -> World:
    service = world.services[f"ns{number // 10}/app{number // 5}"]
    return world.replace([replace(service, vips=())], revision="r")


@pytest.mark.parametrize("change", [becomes_unready, leaves, comes, policy_changes, service_changes])
def test_a_change_costs_what_changed(change: Callable[[World, int], World]) -> None:
    def cost(pods: int) -> costs.Cost:
        world = a_mesh(pods)

        def step(number: int) -> None:
            nonlocal world
            world = change(world, number)

        return costs.of_all(functools.partial(step, number) for number in range(CHANGES))

    small, large = cost(SMALL), cost(LARGE)
    assert large.steps < small.steps * 1.5
    assert large.peak_bytes < small.peak_bytes * 3  # a copy of a table would be 16 times as large


def test_a_pod_that_stays_where_it_is_does_not_cost_what_is_beside_it() -> None:
    def cost(beside: int) -> costs.Cost:
        pods = [a_pod(f"shop/p{number}", labels={"team": "t"}) for number in range(beside)]
        world = a_world(*pods)
        return costs.of(lambda: world.replace([replace(pods[0], ready=False)], revision="r"))

    small, large = cost(SMALL), cost(LARGE)
    assert large.steps < small.steps * 1.5
    assert large.peak_bytes < small.peak_bytes * 1.5
