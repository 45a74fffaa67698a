"""A cluster that is followed, and what comes of it: for the tests of the source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from ambient.model import mesh
from ambient.model.world import World
from ambient.sources.errors import SourceError
from ambient.sources.kubernetes import watch
from tests.identity import virtual

from .cluster import Cluster, Object

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
