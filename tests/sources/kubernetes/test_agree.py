"""A directory and a cluster with the same objects in them are the same World, whatever happened on the way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh
from ambient.model.world import World
from ambient.sources import directory
from ambient.sources.kubernetes import watch
from tests.identity import virtual

from .cluster import DEFINITIONS, RESOURCES, Cluster, Object

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("*.yaml"))
SETTLED_S = 400.0  # beyond any pause between two tries, and the length of a watch


def same(one: World, other: World) -> bool:
    return dataclasses.replace(one, revision="") == dataclasses.replace(other, revision="")


def captured(manifest: Object) -> Object:
    """As its node would say: a directory takes it for granted."""
    if manifest["kind"] != "Pod":
        return manifest
    metadata = manifest["metadata"]
    annotations = (metadata.get("annotations") or {}) | {"ambient.dev/captured": "true"}
    return {**manifest, "metadata": metadata | {"annotations": annotations}}


class Follower:
    """Follows a cluster and remembers every World."""

    def __init__(self, cluster: Cluster) -> None:
        self.worlds: list[World] = []
        self._cluster = cluster

    async def run(self) -> None:
        items = watch(self._cluster.client(), mesh.MeshConfig(), now=virtual.now, chance=lambda: 0.5)
        async with contextlib.aclosing(items):
            async for item in items:
                if isinstance(item, World):
                    self.worlds.append(item)


def following(cluster: Cluster, test: Callable[[Follower], Any]) -> None:
    async def run() -> None:
        follower = Follower(cluster)
        task = asyncio.create_task(follower.run(), name="following")
        await test(follower)
        task.cancel()
        await asyncio.wait([task])

    virtual.run(run())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_the_same_world_from_a_directory_and_from_a_cluster(path: Path, tmp_path: Path) -> None:
    manifests = [one for one in yaml.safe_load_all(path.read_text()) if one]
    ours = [captured(one) for one in manifests if (one["apiVersion"], one["kind"]) in RESOURCES]
    assert ours
    cluster = Cluster()
    cluster.define("ambient.dev", "security.istio.io")
    cluster.put(*ours)
    (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}))

    async def test(follower: Follower) -> None:
        await asyncio.sleep(1)
        assert same(follower.worlds[-1], directory.load(tmp_path, mesh.MeshConfig()))

    following(cluster, test)


# --- made-up histories

NAMES, NAMESPACES = st.sampled_from(["a", "b"]), st.sampled_from(["shop", "other", "ambient-system"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["web", "db"]))
MODES = st.sampled_from([{}, {"ambient.dev/mode": "enabled"}, {"ambient.dev/mode": "disabled"}])
ADDRESSES = {f"{namespace}/{name}": f"10.1.{n}.{m}"
             for n, namespace in enumerate(["shop", "other", "ambient-system"])
             for m, name in enumerate(["a", "b"])}  # fmt: skip


@st.composite
def pods(draw: st.DrawFn) -> Object:
    name, namespace = draw(NAMES), draw(NAMESPACES)
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if draw(st.booleans()) else {}
    labels = draw(LABELS) | draw(MODES)
    found = a_manifest("v1", "Pod", name, namespace, uid=draw(st.sampled_from(["1", "2"])), labels=labels, **leaving)
    ports = [{"name": "http", "containerPort": draw(st.sampled_from([80, 8080]))}]
    spec = {
        "nodeName": draw(st.sampled_from(["n1", "n2"])),
        "hostNetwork": draw(st.booleans()),
        "containers": [{"name": "c", "ports": ports}],
    }
    ready = [{"type": "Ready", "status": draw(st.sampled_from(["True", "False"]))}]
    status = {
        "phase": draw(st.sampled_from(["Pending", "Running", "Succeeded"])),
        "podIP": ADDRESSES[f"{namespace}/{name}"],
        "conditions": ready,
    }
    return captured(found | {"spec": spec, "status": status})


def a_manifest(version: str, kind: str, name: str, namespace: str = "", **metadata: Any) -> Object:
    inside = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **inside, **metadata}}


@st.composite
def policies(draw: st.DrawFn) -> Object:
    kind = draw(st.sampled_from(["AuthorizationPolicy", "PeerAuthentication"]))
    spec = draw(
        st.sampled_from([{}, {"rules": [{}]}, {"action": "DENY", "rules": [{}]}])
        if kind == "AuthorizationPolicy"
        else st.sampled_from([{}, {"mtls": {"mode": "STRICT"}}])
    )
    selector = {"selector": {"matchLabels": {"app": "web"}}} if draw(st.booleans()) else {}
    group = draw(st.sampled_from(["ambient.dev/v1alpha1", "security.istio.io/v1"]))
    return a_manifest(group, kind, draw(NAMES), draw(NAMESPACES)) | {"spec": spec | selector}


NODES = st.builds(
    lambda name, zone: a_manifest("v1", "Node", name, labels={"topology.kubernetes.io/zone": zone}),
    st.sampled_from(["n1", "n2"]),
    st.sampled_from(["x", "y"]),
)
NAMESPACE_OBJECTS = st.builds(
    lambda name, labels: a_manifest("v1", "Namespace", name, labels=labels), NAMESPACES, MODES
)
SERVICES = st.builds(
    lambda name, namespace, selector, port: (
        a_manifest("v1", "Service", name, namespace)
        | {"spec": {"clusterIP": "None", "selector": selector, "ports": [{"port": 80, "targetPort": port}]}}
    ),
    NAMES,
    NAMESPACES,
    LABELS,
    st.sampled_from([80, "http"]),
)
TRAFFIC = st.builds(
    lambda name, namespace, spec, selector: (
        a_manifest("ambient.dev/v1alpha1", "TrafficPolicy", name, namespace) | {"spec": spec | selector}
    ),
    NAMES,
    NAMESPACES,
    st.sampled_from(
        [
            {"outbound": {"mtls": "Required"}},
            {"outbound": {"unknownDestinations": "Refuse", "allowed": [{"cidrs": ["192.0.2.1"], "ports": [443]}]}},
        ]
    ),
    st.sampled_from([{}, {"selector": {"matchLabels": {"app": "web"}}}]),
)
PUTS = st.one_of(pods(), policies(), TRAFFIC, NODES, NAMESPACE_OBJECTS, SERVICES)
FAULTS = st.sampled_from(["cut", "forget", "cut and forget", "away", "leave", "settle"])
STEPS = st.lists(st.one_of(st.tuples(st.just("put"), PUTS), st.tuples(st.just("delete"), PUTS), FAULTS), max_size=25)
SENTINEL = a_manifest("v1", "Pod", "always", "quiet") | {"spec": {"nodeName": "n1"}, "status": {"podIP": "10.9.9.9"}}
GUARD = a_manifest("security.istio.io/v1", "AuthorizationPolicy", "always", "quiet") | {"spec": {}}
FIRST = [
    *(a_manifest("v1", "Node", name) for name in ("n1", "n2")),
    *(captured(SENTINEL), GUARD),
]


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, page=st.sampled_from([1, 3, 1000]), cut=st.sampled_from([0, 1, 40]), repeat=st.booleans())
def test_after_any_history_both_are_the_same_world_and_none_in_between_was_made_of_a_part(
    steps: list[Any], page: int, cut: int, repeat: bool
) -> None:
    cluster = Cluster(page=page, cut=cut, repeat=repeat)
    cluster.define("ambient.dev", "security.istio.io")
    cluster.put(*FIRST)

    with TemporaryDirectory() as place:

        async def test(follower: Follower) -> None:
            for step in [*steps, "settle"]:
                await take(step)
                if step == "settle":
                    cluster.reachable = True
                    await asyncio.sleep(SETTLED_S)
                    (Path(place) / "all.json").write_text(json.dumps(everything(cluster)))
                    assert same(follower.worlds[-1], directory.load(place, mesh.MeshConfig()))
            for world in follower.worlds:
                assert "quiet/always" in world.workloads
                assert "quiet/always" in world.policies
                assert world.nodes.keys() == {"n1", "n2"}

        async def take(step: Any) -> None:
            match step:
                case ("put", manifest):
                    cluster.put(manifest)
                case ("delete", {"kind": kind} as manifest) if kind != "Node":
                    cluster.delete(manifest)
                case "cut" | "cut and forget" | "forget":
                    if "forget" in step:
                        cluster.forget()
                    if "cut" in step:
                        cluster.cut_connections()
                    await asyncio.sleep(0.15)
                case "away":
                    cluster.reachable = False
                    cluster.cut_connections()
                    await asyncio.sleep(7)
                case "leave":
                    await asyncio.sleep(0.001)

        following(cluster, test)


def everything(cluster: Cluster) -> Object:
    """All objects as one manifest. Finished pods are none of a cluster's World: they have no address any more."""
    items = [
        one
        for name, objects in cluster.objects.items()
        for one in objects.values()
        if name != DEFINITIONS.name and one.get("status", {}).get("phase") != "Succeeded"
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}
