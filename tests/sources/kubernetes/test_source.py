"""The API followed as one World, against a server in memory, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ambient.model import mesh
from ambient.model.world import diff
from ambient.sources.kubernetes import kinds, ledger

from .cluster import Cluster
from .followed import (
    Items,
    a_cluster,
    a_pod,
    a_policy,
    error,
    followed,
    nothing,
    time,
    world,
)

# --- the first World


def test_the_first_world_is_all_there_is() -> None:
    cluster = a_cluster(a_pod(), a_policy(rules=[{}]))

    async def test(items: Items) -> None:
        found = await world(items)
        assert (found.namespaces.keys(), found.nodes.keys()) == ({"shop"}, {"n1"})
        assert [endpoint.workload for endpoint in found.endpoints["shop/web"]] == ["shop/web"]
        assert found.policies.keys() == {"shop/p"}
        assert found.workloads["shop/web"].enrolled
        assert not found.workloads["shop/web"].captured

    followed(cluster, test)


def test_an_empty_cluster_is_an_empty_world() -> None:
    async def test(items: Items) -> None:
        assert not (await world(items)).workloads

    followed(Cluster(), test)


ISTIOS = [resource for resource in kinds.POLICIES if resource.group == "security.istio.io"]


@pytest.mark.parametrize("name", [r.name for r in (*kinds.CORE, *ISTIOS)])
def test_there_is_no_world_before_every_kind_was_listed(name: str) -> None:
    cluster = a_cluster(a_pod(), failing={name: 403})

    async def test(items: Items) -> None:
        assert (await error(items)).errors == (
            f"{name}: https://api.test: 403 {name} is forbidden"
            " (since 2026-01-01T00:00:00Z; there is no configuration yet)",
        )
        asyncio.get_running_loop().call_later(100, cluster.failing.clear)
        assert (await world(items, 140)).workloads

    followed(cluster, test)


def test_many_pages_make_one_world() -> None:
    pods = [a_pod(f"p{n}", f"10.1.{n // 256}.{n % 256}") for n in range(300)]

    async def test(items: Items) -> None:
        assert len((await world(items)).workloads) == 300

    followed(a_cluster(*pods, page=7), test)


def test_an_unreachable_server_is_told_of_once_for_all_kinds() -> None:
    async def test(items: Items) -> None:
        (text,) = (await error(items)).errors
        assert text.startswith("definition of authorizationpolicies.ambient.dev, ")
        assert "namespaces, nodes, pods, services: https://api.test: All connection attempts failed (since " in text
        await nothing(items)

    followed(a_cluster(reachable=False), test)


# --- changes


def test_a_change_is_told_at_once_and_as_the_change_it_is() -> None:
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        before = await world(items)
        cluster.put(a_pod(ip="10.1.0.2"))
        began = time()
        after = await world(items)
        assert time() - began <= 0.020
        assert diff(before, after).touched() == {"wl:shop/web", "svc:shop/web", "ip:10.1.0.1", "ip:10.1.0.2"}
        assert before.revision != after.revision == f"{cluster.version}-1"

    followed(cluster, test)


def test_what_changes_nothing_is_not_told() -> None:
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        await world(items)
        cluster.put(a_pod(heartbeat="1"))
        cluster.put(a_pod("new", "10.1.0.9"))
        cluster.delete(a_pod("new", "10.1.0.9"))
        await nothing(items)

    followed(cluster, test)


def test_a_burst_of_changes_of_several_kinds_is_one_change() -> None:
    cluster = a_cluster()

    async def test(items: Items) -> None:
        before = await world(items)
        cluster.put(*(a_pod(f"p{n}", f"10.1.0.{n}") for n in range(1, 100)), a_policy(rules=[{}]))
        after = await world(items)
        assert (len(diff(before, after).workloads), len(after.policies)) == (99, 1)
        await nothing(items)

    followed(cluster, test)


def test_a_change_does_not_wait_for_the_end_of_a_burst_that_does_not_end() -> None:
    cluster = a_cluster()

    async def busy() -> None:
        for n in range(1, 200):
            cluster.put(a_pod(f"p{n}", f"10.1.0.{n}"))
            await asyncio.sleep(0.002)

    async def test(items: Items) -> None:
        await world(items)
        began, job = time(), asyncio.create_task(busy(), name="busy")
        first = await world(items)
        assert time() - began <= 0.025
        assert 1 <= len(first.workloads) <= 14
        await job
        while len((await world(items)).workloads) < 199:
            pass
        assert time() - began <= 0.500

    followed(cluster, test)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_finished_leaves_and_its_address_is_free(phase: str) -> None:
    cluster = a_cluster(a_pod(), a_pod("old", "10.1.0.9", phase=phase))

    async def test(items: Items) -> None:
        assert (await world(items)).workloads.keys() == {"shop/web"}
        cluster.put(a_pod(phase=phase), a_pod("next"))
        found = await world(items)
        assert found.workloads.keys() == {"shop/next"}
        assert found.workload_at(mesh.address("10.1.0.1")) is found.workloads["shop/next"]

    followed(cluster, test)


def test_a_contradiction_does_not_stop_the_others() -> None:
    """Two pods with one address: neither is trusted, and the rest of the cluster goes on."""
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        await world(items)
        cluster.put(a_pod("twin"), a_pod("other", "10.1.0.7"))
        found = await world(items)
        assert found.workload_at(mesh.address("10.1.0.1")) is None
        assert found.problems()
        assert found.workload_at(mesh.address("10.1.0.7"))

    followed(cluster, test)


# --- the end


@pytest.mark.parametrize("after", [0, 0.001, 60])
def test_closing_ends_it_at_once_whatever_it_does(after: float) -> None:
    async def test(_: Items) -> None:
        await asyncio.sleep(after)

    followed(a_cluster(), test)


def test_a_mistake_of_ours_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ledger.Ledger, "found", broken)

    async def test(items: Items) -> None:
        await nothing(items)

    with pytest.raises(RuntimeError, match="ended") as caught:
        followed(a_cluster(), test)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
