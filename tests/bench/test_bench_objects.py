"""What the control plane's benchmarks are fed with is what a cluster has."""

from __future__ import annotations

import json

import pytest

from ambient.sources import manifests
from bench.control import objects, wanted
from bench.control.apiserver import PAGE, pages

FED = {
    "Namespace": ("v1", objects.namespace(7)),
    "Node": ("v1", objects.node(7)),
    "Service": ("v1", objects.service(7, 20)),
    "Pod": ("v1", objects.pod(7, 20)),
    "AuthorizationPolicy": ("security.istio.io/v1", objects.policy(7)),
}


@pytest.mark.parametrize("kind", FED)
def test_every_object_is_read_without_a_problem(kind: str) -> None:
    version, found = FED[kind]
    assert manifests.translate({"apiVersion": version, "kind": kind, **found}).object


def test_a_pod_has_the_size_of_a_pod() -> None:
    assert 4_000 < len(json.dumps(objects.pod(7, 20))) < 10_000


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (PAGE, [PAGE]), (PAGE + 1, [PAGE, 1])])
def test_lists_come_in_pages_that_name_the_next_one(count: int, sizes: list[int]) -> None:
    found = [json.loads(page) for page in pages({} for _ in range(count))]
    assert [len(page["items"]) for page in found] == sizes
    assert [page["metadata"]["continue"] for page in found] == [*map(str, range(1, len(sizes))), ""]


CREATED = {
    "Namespace": wanted.namespace(7),
    "Node": wanted.node(7),
    "Service": wanted.service(7, 20),
    "Pod": wanted.pod(7, 20),
    "AuthorizationPolicy": wanted.policy(7),
}


@pytest.mark.parametrize("kind", CREATED)
def test_what_is_created_says_what_the_object_is_and_leaves_to_the_server_what_is_its(kind: str) -> None:
    version, whole = FED[kind]
    created = CREATED[kind]
    assert created["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}
    assert created["metadata"]["name"] == whole["metadata"]["name"]
    assert created["metadata"].get("labels") == whole["metadata"].get("labels")
    assert manifests.translate({"apiVersion": version, "kind": kind, **created}).ref.kind == kind
