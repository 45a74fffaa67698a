"""What an agent makes of responses: Worlds only of complete states, acknowledgements, and refusals that fail closed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model import mesh
from ambient.model.world import World, diff
from ambient.xds import delta, names
from ambient.xds.picture import NAMED_MAX, Picture
from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.snapshot import Snapshot
from tests.model.builders import (
    IP,
    ROOT,
    a_node,
    a_peer_authentication,
    a_pod,
    a_policy,
    a_service,
    a_traffic_policy,
    a_world,
)

from . import wire
from .loop import NODE, looped
from .worlds import STEPS, WORLDS, step

WEB = a_pod("shop/web", "10.1.0.1")
WORLD = a_world(a_node("n1"), WEB, a_service("shop/web", "10.96.0.1"), a_policy("shop/p"))


def response(type_url: str, *resources: wire.Fields, removed: Any = (), ours: bool = True, **more: Any) -> Any:
    fields = {4: type_url, 5: "n", 2: list(resources), 6: list(removed), 7: {1: "ambient/x" if ours else "istiod"}}
    found = pb.DeltaDiscoveryResponse.FromString(wire.encode(fields))
    found.MergeFrom(pb.DeltaDiscoveryResponse(**more))
    return found


def resource(type_url: str, name: str, value: wire.Fields | bytes, version: str = "1") -> wire.Fields:
    return {1: version, 3: name, 2: {1: type_url, 2: wire.encode(value) if isinstance(value, dict) else value}}


def node(name: str, version: str = "1") -> wire.Fields:
    return resource(names.NOUN, f"node/{name}", {1: {1: name}}, version)


def connected() -> Picture:
    picture = Picture(mesh.MeshConfig())
    picture.connect(NODE)
    return picture


def complete(picture: Picture, *nouns: wire.Fields) -> World | None:
    """Everything, as three responses."""
    found = [picture.receive(response(names.NOUN, *nouns)), picture.receive(response(names.AUTHORIZATION))]
    assert [world for _, world in found] == [None, None]
    return picture.receive(response(names.ADDRESS))[1]


def test_a_connection_begins_with_a_request_for_each_type_and_who_asks() -> None:
    first, *rest = Picture(mesh.MeshConfig()).connect(pb.Node(id="me"))
    assert [each.type_url for each in (first, *rest)] == [*names.TYPES]
    assert first.node.id == "me"
    assert not any(each.HasField("node") for each in rest)
    assert not any(each.initial_resource_versions for each in (first, *rest))


def test_the_first_world_waits_for_every_type() -> None:
    picture = connected()
    world = complete(picture, node("n1"))
    assert world is not None
    assert world.nodes == {"n1": mesh.Node(name="n1")}
    assert picture.complete


def test_an_empty_mesh_is_a_world_too() -> None:
    assert complete(connected()) == World(revision="n")  # a nonce, where the control plane tells no revision


def test_istiod_knows_no_nouns_and_is_not_waited_for() -> None:
    picture = connected()
    assert picture.receive(response(names.AUTHORIZATION, ours=False))[1] is None
    assert picture.receive(response(names.ADDRESS, ours=False))[1] is not None
    assert picture.replica == "istiod"


def test_a_world_comes_only_with_the_response_that_completes_it() -> None:
    picture = connected()
    complete(picture)
    assert picture.receive(response(names.NOUN, node("n1"), more=True))[1] is None
    assert picture.receive(response(names.NOUN, node("n2"), more=True))[1] is None
    world = picture.receive(response(names.ADDRESS))[1]
    assert world is not None
    assert world.nodes.keys() == {"n1", "n2"}


def test_a_state_that_brings_nothing_new_is_no_new_world() -> None:
    picture = connected()
    complete(picture, node("n1"))
    assert picture.receive(response(names.NOUN))[1] is None
    assert picture.receive(response(names.NOUN, removed=["node/unknown"]))[1] is None


def test_the_revision_is_the_control_planes() -> None:
    picture = connected()
    complete(picture)
    _, world = picture.receive(response(names.NOUN, node("n1"), system_version_info="r9"))
    assert world is not None
    assert world.revision == "r9"


def test_a_next_world_says_what_changed_without_a_comparison() -> None:
    loop = looped(WORLD)
    (before,) = loop.worlds
    loop.publish(WORLD.replace([replace(WEB, ready=False)], revision="2"))
    loop.settle()
    after = loop.worlds[-1]
    assert after._made_from is not None
    assert after._made_from[0] is before._mark
    assert diff(before, after).touched() == {"wl:shop/web"}


def test_answers_name_the_response_and_its_type() -> None:
    answer, _ = connected().receive(response(names.NOUN, node("n1")))
    assert (answer.type_url, answer.response_nonce, answer.HasField("error_detail")) == (names.NOUN, "n", False)


def test_a_type_that_was_not_asked_for_is_refused() -> None:
    answer, world = connected().receive(response("type/thing"))
    assert answer.error_detail.message == "type/thing was not asked for"
    assert world is None


def test_roots_are_kept_and_are_no_part_of_the_world() -> None:
    picture = connected()
    complete(picture, resource(names.NOUN, "roots", {6: {1: b"PEM"}}))
    assert picture.roots == b"PEM"
    assert picture.receive(response(names.NOUN, resource(names.NOUN, "roots", {6: {1: b"PEM2"}}, "2")))[1] is None
    assert picture.roots == b"PEM2"


def test_the_control_planes_mesh_config_holds() -> None:
    world = a_world(config=mesh.MeshConfig("example.org", "somewhere", mesh.OutboundMode.REGISTRY_ONLY))
    loop = looped(world)
    assert loop.worlds[-1].mesh == world.mesh
    other = world.replace(revision="2", mesh=replace(world.mesh, trust_domain="example.net"))
    loop.publish(other)
    assert loop.settle().worlds[-1] == other


# --- reconnections


def versions(picture: Picture) -> dict[str, set[str]]:
    return {each.type_url: {*each.initial_resource_versions} for each in picture.connect(NODE)}


def test_a_reconnection_says_what_is_held_and_passes_through_no_other_world() -> None:
    loop = looped(WORLD)
    loop.said.clear()
    loop.connect().settle()
    assert loop.worlds == [WORLD]
    assert [len(each.resources) for each in loop.said] == [0, 0, 0]
    assert loop.picture.complete


def test_until_a_new_connection_brought_a_whole_state_there_is_none() -> None:
    loop = looped(WORLD)
    loop.connect()
    assert not loop.picture.complete
    assert loop.picture.world == WORLD


def test_what_changed_while_away_is_all_that_comes() -> None:
    loop = looped(WORLD)
    later = WORLD.replace([replace(WEB, ready=False)], [(mesh.AuthorizationPolicy, "shop/p")], revision="2")
    loop.snapshot = Snapshot.of(later)
    loop.said.clear()
    loop.connect().settle()
    assert loop.worlds == [WORLD, later]
    assert [[each.name for each in said.resources] for said in loop.said] == [[], [], ["Kubernetes//Pod/shop/web"]]
    assert [[*said.removed_resources] for said in loop.said] == [[], ["shop/p"], []]


def test_a_push_cut_short_goes_on_where_it_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PIECE_RESOURCES", 2)
    pods = [a_pod(f"shop/p{number}", f"10.1.0.{number}") for number in range(10)]
    loop = looped(WORLD)
    later = WORLD.replace(pods, revision="2")
    loop.publish(later)
    loop.settle(responses=len(loop.said) + 2)
    assert loop.worlds == [WORLD]
    loop.said.clear()
    loop.connect().settle()
    assert loop.worlds == [WORLD, later]
    assert sum(len(each.resources) for each in loop.said) == 6


@settings(max_examples=60, deadline=None)
@given(WORLDS, st.lists(st.tuples(STEPS, st.integers(0, 3), st.booleans()), max_size=5), st.integers(1, 4))
def test_however_pushes_are_cut_the_picture_becomes_the_newest_world(
    world: World, steps: list[tuple[Any, int, bool]], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "PIECE_RESOURCES", size)
        loop = looped(world)
        published = [world]
        for number, (change, delivered, replica) in enumerate(steps):
            world = step(world, change, f"r{number}")
            published.append(world)
            loop.publish(world)
            loop.settle(responses=len(loop.said) + delivered)
            if replica:
                loop.snapshot = Snapshot.of(world)
                loop.connect()
        loop.connect().settle()
        assert unnamed(loop.picture.world) == unnamed(world)
        assert all(unnamed(each) in map(unnamed, published) for each in loop.worlds)  # never one that was not


def unnamed(world: World | None) -> World:
    """Without its revision: a change of that alone is not told."""
    assert world is not None
    return world.replace(revision="")


# --- refusals


def broken(type_url: str, name: str, version: str = "1") -> wire.Fields:
    return resource(type_url, name, b"\xff", version)


def test_what_is_not_understood_is_refused_by_name_and_the_rest_is_taken() -> None:
    picture = connected()
    answer, _ = picture.receive(response(names.NOUN, node("n1"), broken(names.NOUN, "node/n2"), node("n3")))
    assert answer.error_detail.message.startswith("Noun node/n2: its bytes are no Noun")
    assert answer.response_nonce == "n"
    picture.receive(response(names.AUTHORIZATION))
    world = picture.receive(response(names.ADDRESS))[1]
    assert world is not None
    assert world.nodes.keys() == {"n1", "n3"}
    (problem,) = picture.problems
    assert "node/n2" in problem


def test_many_refusals_are_counted() -> None:
    bad = [broken(names.NOUN, f"node/{number}") for number in range(NAMED_MAX + 5)]
    answer, _ = connected().receive(response(names.NOUN, *bad))
    assert answer.error_detail.message.endswith("; and 5 more")
    assert len(answer.error_detail.message) < 10_000


def test_the_last_good_version_stays_and_is_what_a_reconnection_names() -> None:
    picture = connected()
    complete(picture, node("n1"))
    picture.receive(response(names.NOUN, broken(names.NOUN, "node/n1", "2")))
    assert picture.world is not None
    assert picture.world.nodes.keys() == {"n1"}
    (noun, *_) = picture.connect(NODE)
    assert noun.initial_resource_versions == {"node/n1": "1"}


def test_a_refusal_is_forgotten_when_it_is_mended_or_gone() -> None:
    picture = connected()
    complete(picture, broken(names.NOUN, "node/n1"), broken(names.NOUN, "node/n2"))
    assert len(picture.problems) == 2
    picture.receive(response(names.NOUN, node("n1", "2"), removed=["node/n2"]))
    assert picture.problems == ()


def test_a_policy_that_was_never_understood_denies_all_of_its_namespace_until_it_is_gone() -> None:
    picture = connected()
    picture.receive(response(names.NOUN))
    picture.receive(response(names.AUTHORIZATION, broken(names.AUTHORIZATION, "shop/p")))
    world = picture.receive(response(names.ADDRESS))[1]
    assert world is not None
    assert world.policies["shop/p"] == a_policy("shop/p", mesh.Rule(), action=mesh.Action.DENY)
    requests = {each.type_url: each for each in picture.connect(NODE)}
    assert requests[names.AUTHORIZATION].initial_resource_versions == {"shop/p": ""}  # no version that there is
    picture.receive(response(names.NOUN))
    picture.receive(response(names.AUTHORIZATION, removed=["shop/p"]))
    world = picture.receive(response(names.ADDRESS))[1]
    assert world is not None
    assert world.policies == {}


def test_a_policy_that_is_not_understood_any_more_stays_what_it_was() -> None:
    loop = looped(WORLD)
    loop.picture.receive(response(names.AUTHORIZATION, broken(names.AUTHORIZATION, "shop/p", "2")))
    assert loop.picture.world is not None
    assert loop.picture.world.policies == WORLD.policies


def test_a_peer_authentication_that_was_never_understood_is_strict() -> None:
    world = complete(connected(), broken(names.NOUN, "peer-authentication/shop/p"))
    assert world is not None
    assert world.peer_authentications == {"shop/p": a_peer_authentication("shop/p", "STRICT")}


def test_a_traffic_policy_that_was_never_understood_refuses() -> None:
    world = complete(connected(), broken(names.NOUN, "traffic-policy/shop/p"))
    assert world is not None
    refusing = a_traffic_policy("shop/p", outbound=mesh.OutboundMode.REGISTRY_ONLY, require_mtls=True)
    assert world.traffic_policies == {"shop/p": refusing}


def test_a_name_that_stands_for_nothing_is_refused_without_a_stand_in() -> None:
    picture = connected()
    picture.receive(response(names.NOUN))
    answer, _ = picture.receive(response(names.AUTHORIZATION, broken(names.AUTHORIZATION, "nonsense")))
    assert "nonsense" in answer.error_detail.message
    assert picture.receive(response(names.ADDRESS))[1] == World(revision="n")


def test_a_world_that_contradicts_itself_is_told_and_so_are_its_problems() -> None:
    twin = a_pod("back/twin", "10.1.0.1")
    loop = looped(WORLD.replace([twin], revision="2"))
    world = loop.worlds[-1]
    assert world.workload_at(IP("10.1.0.1")) is None
    first, second = loop.picture.problems
    assert first.startswith("Pod back/twin: status.podIPs: expected an address of its own, found 10.1.0.1")
    assert second.startswith("Pod shop/web: status.podIPs")
    loop.publish(WORLD)
    loop.settle()
    assert loop.worlds[-1].workload_at(IP("10.1.0.1")) == WEB
    assert loop.picture.problems == ()


def test_policies_made_for_other_readers_are_no_policies_of_ours() -> None:
    strict = a_peer_authentication(f"{ROOT}/all", "STRICT")
    world = a_world(
        strict, a_peer_authentication("shop/p", port_modes={80: mesh.MtlsMode.DISABLE}, selector={"a": "b"})
    )
    loop = looped(world)
    assert loop.worlds[-1].policies == {}
    loop.publish(
        world.replace([], [(mesh.PeerAuthentication, strict.key), (mesh.PeerAuthentication, "shop/p")], revision="2")
    )
    assert loop.settle().worlds[-1].peer_authentications == {}


def test_a_policy_that_becomes_a_waypoints_moves_between_types_without_a_gap() -> None:
    loop = looped(WORLD)
    for targets in (("Gateway/w",), ()):
        loop.publish(loop.snapshot.world.replace([a_policy("shop/p", targets=targets)], revision=str(targets)))
        loop.settle()
        assert loop.worlds[-1].policies["shop/p"].targets == targets
    assert len(loop.worlds) == 3
