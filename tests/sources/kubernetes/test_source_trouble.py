"""Following a cluster when kinds come and go, places are lost and the server is away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from ambient.model.world import diff
from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.outcomes import Outcomes

from .cluster import a_definition
from .followed import (
    POLICIES,
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
