"""World -> resources -> World is the identity; what cannot be understood is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from ambient.model import mesh
from ambient.model.world import World
from ambient.sources import directory
from ambient.xds import names, services
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import decode, make
from ambient.xds.snapshot import Snapshot
from tests.model.builders import a_pod, a_service, a_world

from . import wire
from .loop import looped
from .worlds import WORLDS

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_survives_the_wire(path: Path, tmp_path: Path) -> None:
    (tmp_path / path.name).write_text(path.read_text())
    world = directory.load(tmp_path, mesh.MeshConfig(outbound=mesh.OutboundMode.REGISTRY_ONLY))
    (received,) = looped(world).worlds
    assert received == world
    assert received.mesh == world.mesh


def test_the_examples_together_survive_the_wire() -> None:
    assert len(EXAMPLES) > 1
    world = directory.load(EXAMPLES[0].parent, mesh.MeshConfig())
    assert looped(world).worlds == [world]


@settings(max_examples=150, deadline=None)
@given(WORLDS)
def test_every_world_survives_the_wire(world: World) -> None:
    loop = looped(world)
    assert loop.worlds == [world]
    assert loop.nacks == []


def test_equal_nouns_have_equal_versions_whoever_encodes_them_and_others_have_others() -> None:
    one = Snapshot.of(a_world(a_pod("shop/web", labels={"a": "1", "b": "2"})))
    other = Snapshot.of(a_world(a_pod("shop/api"), a_pod("shop/web", labels={"b": "2", "a": "1"})))
    changed = Snapshot.of(a_world(a_pod("shop/web", labels={"a": "1", "b": "3"})))
    name = names.of_workload("shop/web")
    assert one.table(names.ADDRESS)[name] == other.table(names.ADDRESS)[name]
    assert one.table(names.ADDRESS)[name].version != changed.table(names.ADDRESS)[name].version


def test_an_element_is_a_field_of_the_response_ready_to_be_joined() -> None:
    made = make(names.ADDRESS, "shop/web.shop.svc.cluster.local", services.encode(a_service("shop/web")), ["/10.0.0.1"])
    response = wire.decode(wire.encode({5: "nonce"}) + made.element + made.element)
    first, second = wire.messages(response, 2)
    assert first == second
    assert wire.text(first, 1) == made.version
    assert wire.text(first, 3) == "shop/web.shop.svc.cluster.local"
    assert wire.texts(first, 4) == ["/10.0.0.1"]
    (any_,) = wire.messages(first, 2)
    assert wire.text(any_, 1) == "type.googleapis.com/istio.workload.Address"
    assert any_[2] == [services.encode(a_service("shop/web")).SerializeToString(deterministic=True)]


def a_resource(type_url: str, name: str, fields: wire.Fields | bytes, inner: str = "") -> pb.Resource:
    value = fields if isinstance(fields, bytes) else wire.encode(fields)
    resource = pb.Resource(name=name, version="1")
    resource.resource.type_url, resource.resource.value = inner or type_url, value
    return resource


POD = "Kubernetes//Pod/shop/web"
REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "bytes that are no message": (names.ADDRESS, POD, b"\xff\xff", "its bytes are no Address"),
    "neither workload nor Service": (names.ADDRESS, POD, {}, "neither a workload nor a Service"),
    "an address of 3 bytes": (names.ADDRESS, POD, {1: {20: POD, 3: b"abc"}}, "b'abc' does not appear to be"),
    "a tunnel we do not speak": (names.ADDRESS, POD, {1: {20: POD, 5: 2}}, "tunnel protocol 2 is not spoken"),
    "a uid without a namespace": (names.ADDRESS, POD, {1: {20: "vm-7"}}, "'vm-7' names no Address"),
    "a uid that names a Service": (names.ADDRESS, POD, {1: {20: "a/b"}}, "is not cluster/group/kind/namespace/name"),
    "another workload than it says": (names.ADDRESS, POD, {1: {20: POD + "-2"}}, "holds the Workload shop/web-2"),
    "a Service under a pod's name": (names.ADDRESS, POD, {2: {2: "shop", 3: "web.shop.svc.x"}}, "holds the Service"),
    "an action nobody knows": (names.AUTHORIZATION, "a/p", {1: "p", 2: "a", 4: 9}, "action 9 or scope 0 is unknown"),
    "a scope nobody knows": (names.AUTHORIZATION, "a/p", {1: "p", 2: "a", 3: 9}, "action 0 or scope 9 is unknown"),
    "a policy's name without its namespace": (names.AUTHORIZATION, "p", {1: "p", 2: "a"}, "'p' names no Authorization"),
    "text that no pattern says": (
        names.AUTHORIZATION,
        "a/p",
        {1: "p", 2: "a", 5: {1: {2: {3: {1: "a*"}}}}},
        "cannot be written as a pattern",
    ),
    "a text match without text": (
        names.AUTHORIZATION,
        "a/p",
        {1: "p", 2: "a", 5: {1: {2: {3: {}}}}},
        "cannot be written as a pattern",
    ),
    "a prefix longer than an address": (
        names.AUTHORIZATION,
        "a/p",
        {1: "p", 2: "a", 5: {1: {2: {5: {1: b"\x0a\0\0\0", 2: 33}}}}},
        "33",
    ),
    "a noun nobody knows": (names.NOUN, "node/n", {99: {1: "n"}}, "of a kind that is unknown"),
    "a node under a namespace's name": (names.NOUN, "namespace/n", {1: {1: "n"}}, "it holds the Node n"),
    "an outbound mode nobody knows": (names.NOUN, "namespace/n", {2: {1: "n", 4: 9}}, "outbound mode 9 is unknown"),
    "a mesh with an unknown mode": (names.NOUN, "mesh", {5: {3: 9}}, "outbound mode 9 is unknown"),
    "a mesh that is no mesh": (names.NOUN, "mesh", {6: {1: b"PEM"}}, "it holds roots"),
    "a mutual TLS mode nobody knows": (
        names.NOUN,
        "peer-authentication/a/p",
        {3: {1: "a", 2: "p", 5: {1: 80, 2: 9}}},
        "a mutual TLS mode is unknown",
    ),
}


@pytest.mark.parametrize(("type_url", "name", "fields", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_understood_is_refused_with_the_reason(type_url: str, name: str, fields: Any, why: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + why.replace("(", r"\(").replace("*", r"\*")):
        decode(type_url, a_resource(type_url, name, fields))


def test_a_resource_of_another_type_than_its_response_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it is a 'x\.y/z'"):
        decode(names.NOUN, a_resource(names.NOUN, "node/n", {1: {1: "n"}}, inner="x.y/z"))


def test_fields_that_a_newer_control_plane_added_are_no_harm() -> None:
    found = decode(names.NOUN, a_resource(names.NOUN, "node/n", {1: {1: "n", 77: "news"}}))
    assert found.noun == mesh.Node(name="n")


def test_details_that_do_not_fit_the_message_are_refused() -> None:
    service = replace(a_service("shop/web"), ports=())
    message = services.encode(service).service
    message.ports.add(service_port=80)
    body = type(services.encode(service))(service=message)
    with pytest.raises(ValueError, match="details do not fit"):
        decode(names.ADDRESS, a_resource(names.ADDRESS, names.of_service(service), body.SerializeToString()))
