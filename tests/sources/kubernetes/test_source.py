"""The API followed as one World, against a server in memory, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ambient.model import mesh
from ambient.model.world import World, diff
from ambient.sources.errors import SourceError
from ambient.sources.kubernetes import kinds, ledger, watch
from ambient.sources.kubernetes.outcomes import Outcomes
from tests.identity import virtual

from .cluster import Cluster, Object, a_definition

Items = asyncio.Queue[tuple[float, World | SourceError]]  # with the time when each was told
PODS, POLICIES = "pods", "authorizationpolicies.security.istio.io"


def a_pod(name: str = "web", ip: str = "10.1.0.1", namespace: str = "shop", **status: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": "u-" + name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]} | status,
    }


def a_policy(name: str = "p", group: str = "security.istio.io/v1", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "shop", "uid": "u-" + name, "generation": 1}
    return {"apiVersion": group, "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


SHOP: Object = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "labels": {"ambient.dev/mode": "enabled"}},
}
NODE: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
SERVICE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
}


def a_cluster(*more: Object, **settings: Any) -> Cluster:
    cluster = Cluster(**settings)
    cluster.define("security.istio.io")
    cluster.put(SHOP, NODE, SERVICE, *more)
    return cluster


def followed(cluster: Cluster, test: Callable[[Items], Awaitable[None]], **more: Any) -> None:
    """The test with the items that follow the cluster, on virtual time."""

    async def run() -> None:
        items: Items = asyncio.Queue()

        async def follow() -> None:
            source = watch(cluster.client(), mesh.MeshConfig(), now=virtual.now, chance=lambda: 0.0, **more)
            async with contextlib.aclosing(source):
                async for item in source:
                    items.put_nowait((time(), item))

        following = asyncio.create_task(follow(), name="following")
        await test(items)
        following.cancel()
        await asyncio.wait([following])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if not following.cancelled():
            following.result()

    virtual.run(run())


async def world(items: Items, within: float = 1.0) -> World:
    _, found = await asyncio.wait_for(items.get(), within)
    assert isinstance(found, World), found
    return found


async def error(items: Items, within: float = 1.0) -> SourceError:
    _, found = await asyncio.wait_for(items.get(), within)
    assert isinstance(found, SourceError), found
    return found


async def nothing(items: Items, seconds: float = 900.0) -> None:
    await asyncio.sleep(seconds)
    assert items.empty(), items.get_nowait()


def time() -> float:
    return asyncio.get_running_loop().time()


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


# --- kinds that come and go


def test_a_kind_that_comes_is_noticed_by_its_definition_and_one_that_goes_too() -> None:
    cluster = a_cluster()

    async def test(items: Items) -> None:
        assert not (await world(items)).policies
        cluster.define("ambient.dev", established="False")
        await nothing(items, 60)
        began = time()
        cluster.define("ambient.dev")
        cluster.put(a_policy(group="ambient.dev/v1alpha1", rules=[{}]), a_policy())
        found = await world(items)
        assert found.policies.keys() == {"shop/p", "shop/p (security.istio.io)"}
        assert time() - began < 0.1
        cluster.undefine("ambient.dev")
        cluster.cut_connections()
        assert (await world(items)).policies.keys() == {"shop/p"}
        await nothing(items)
        cluster.define("ambient.dev")
        cluster.put(a_policy("q", group="ambient.dev/v1alpha1"))
        assert (await world(items)).policies.keys() == {"shop/p", "shop/q"}

    followed(cluster, test)


def test_a_kind_that_is_not_there_but_defined_is_a_failure_and_its_objects_stay() -> None:
    cluster = a_cluster(a_policy(rules=[{}]))

    async def test(items: Items) -> None:
        await world(items)
        cluster.failing[POLICIES] = 404
        cluster.cut_connections()
        (text,) = (await error(items, 20)).errors
        assert text.startswith(f"{POLICIES}: https://api.test: 404 ")
        assert text.endswith("(since 2026-01-01T00:00:00Z; the last configuration stays)")
        cluster.put(a_pod())
        found = await world(items)
        assert found.policies.keys() == {"shop/p"}
        assert (await error(items)).errors == (text,)  # as what is told last is what holds
        cluster.failing.clear()
        assert (await world(items, 60)).policies.keys() == {"shop/p"}

    followed(cluster, test)


def test_a_definition_without_a_version_that_we_read_is_a_failure_until_it_has_one() -> None:
    cluster = a_cluster()
    future = a_definition(kinds.POLICIES[2])
    future["spec"] = {"versions": [{"name": "v2", "served": True}]}
    cluster.put(future)

    async def test(items: Items) -> None:
        (text,) = (await error(items)).errors
        assert text.startswith(f"{POLICIES}: served as v2, and read as v1 or v1beta1 only")
        await nothing(items)
        old = a_definition(kinds.POLICIES[2])
        old["spec"] = {"versions": [{"name": "v1beta1", "served": True}]}
        cluster.put(old, a_policy(group="security.istio.io/v1beta1"))
        assert (await world(items)).policies.keys() == {"shop/p"}

    followed(cluster, test)


# --- trouble


@pytest.mark.parametrize("page", [1000, 1])
def test_what_was_missed_is_made_up_for_as_one_difference(page: int) -> None:
    cluster = a_cluster(a_pod("a", "10.1.0.1"), a_pod("b", "10.1.0.2"), a_policy(rules=[{}]), page=page)

    async def test(items: Items) -> None:
        before = await world(items)
        cluster.reachable = False
        cluster.cut_connections()
        await asyncio.sleep(1)
        cluster.delete(a_pod("a"), a_policy())
        cluster.put(a_pod("c", "10.1.0.3"))
        cluster.forget()
        cluster.reachable = True
        seen = [before]
        while seen[-1].workloads.keys() != {"shop/b", "shop/c"} or seen[-1].policies:
            seen.append(await world(items, 60))
        assert all("shop/b" in each.workloads and each.services and each.namespaces for each in seen)
        assert {key for one, two in itertools.pairwise(seen) for key in diff(one, two).workloads} == {
            "shop/a",
            "shop/c",
        }

    followed(cluster, test)


def test_a_new_list_of_the_same_is_not_told() -> None:
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        await world(items)
        cluster.version += 50
        cluster.forget()
        cluster.cut_connections()
        await nothing(items)
        assert cluster.asked.count("list pods") == 2

    followed(cluster, test)


def test_a_server_that_is_away_for_minutes_is_told_of_and_the_last_world_holds_until_it_is_back() -> None:
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        before = await world(items)
        await asyncio.sleep(60)
        cluster.reachable = False
        cluster.cut_connections()
        began = time()
        (text,) = (await error(items, 20)).errors
        assert 5 <= time() - began <= 13
        assert "All connection attempts failed (since 2026-01-01T00:01:00Z; the last configuration stays)" in text
        await nothing(items)
        cluster.reachable = True
        began = time()
        assert await world(items, 31) is before
        await nothing(items)

    followed(cluster, test)


def test_a_short_absence_is_not_worth_a_word() -> None:
    cluster = a_cluster(a_pod())

    async def test(items: Items) -> None:
        await world(items)
        cluster.reachable = False
        cluster.cut_connections()
        asyncio.get_running_loop().call_later(4, setattr, cluster, "reachable", True)
        await nothing(items)

    followed(cluster, test)


# --- what is wrong with objects


def test_what_became_of_each_policy_is_told() -> None:
    cluster, outcomes = a_cluster(a_policy("good"), a_policy("bad", rules=[{"form": []}])), Outcomes()

    async def test(items: Items) -> None:
        found = await world(items)
        assert found.policies.keys() == {"shop/good", "shop/bad (unreadable: denies all)"}
        async with contextlib.aclosing(outcomes.follow()) as batches:
            assert {one.name: bool(one.problems) for one in await anext(batches)} == {"good": False, "bad": True}
            cluster.put(a_policy("bad"))
            assert (await world(items)).policies.keys() == {"shop/good", "shop/bad"}
            assert [(one.name, one.problems) for one in await anext(batches)] == [("bad", ())]

    followed(cluster, test, outcomes=outcomes)


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
