"""What daemonset.yaml lets the control plane do in the API is what it does there: nothing lacks, nothing is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.control import lease
from ambient.model.world import World
from ambient.sources.kubernetes import kinds

from .replicas import Node, furnish, replicas
from .rights import GuardedApi, rules


def furnished() -> GuardedApi:
    """Policies of every kind and group beside everything else."""
    api = GuardedApi()
    furnish(api)
    api.cluster.define("ambient.dev", "security.istio.io")
    for number, resource in enumerate(kinds.POLICIES):
        name = f"policy-{number}"
        metadata = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "generation": 1}
        policy = {"apiVersion": resource.api_version(resource.versions[0]), "kind": resource.kind, "spec": {}}
        api.cluster.put(policy | {"metadata": metadata})
        api.server.put(resource.plural, policy | {"metadata": metadata})
    return api


def test_the_control_plane_uses_each_of_its_rights_and_asks_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas found a CA, publish it, take and keep the Lease, judge policies, and are told of two captures."""
    monkeypatch.setattr(lease, "RETRY_S", 0.1)

    async def main() -> None:
        api = furnished()
        async with replicas(api, "one", "two") as (one, two):
            await one.until(lambda: ("configmaps", "ambient-system", "ambient-root") in api.server.objects)
            for replica in (one, two):  # the second one finds the first one's Event, and counts it on
                node = Node(tmp_path, api, "node-1", replica)
                node.mount()
                async with node:
                    await node.has("shop/web")
                    world = node.items[-1]
                    assert isinstance(world, World)
                    pods = dict(world.workloads)
                    node.upstream.tell([pods["shop/web"]], {"shop/web": "its namespace is gone"}, pods)
                    told = api.server.count("POST events"), api.server.count("PATCH events")
                    await one.until(
                        lambda told=told: (  # type: ignore[misc]
                            (api.server.count("POST events"), api.server.count("PATCH events")) > told
                        )
                    )
            await one.until(lambda: api.used == api.granted or bool(api.denied))
        assert api.denied == []

    asyncio.run(main())


def test_no_right_is_one_to_read_secrets_or_to_change_pods() -> None:
    for rule in rules("ambient-control"):
        for group, resource, verb in rule.rights:
            if resource in ("secrets", "configmaps", "leases"):
                assert rule.namespace
                assert rule.names or verb == "create"
            assert (resource, verb) not in {("pods", "patch"), ("pods", "update"), ("pods", "create")}
            assert "*" not in (group, resource, verb)


def test_the_engine_has_no_rights_at_all() -> None:
    assert rules("ambient-engine") == []
