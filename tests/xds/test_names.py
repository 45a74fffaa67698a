"""Names, aliases, and what they stand for."""

from __future__ import annotations

import pytest

from ambient.model import mesh
from ambient.xds import names
from tests.model.builders import IP, a_node, a_pod, a_service, a_world

POD, SERVICE = "Kubernetes//Pod/shop/web-1", "shop/web.shop.svc.cluster.local"
WORLD = a_world(
    a_pod("shop/web-1", "10.1.0.1", "fd00::1", labels={"app": "web"}),
    a_pod("shop/web-2", "10.1.0.2", labels={"app": "web"}),
    a_pod("shop/alone", "10.1.0.3"),
    a_pod("shop/host", "10.0.0.1", host_network=True),
    a_pod("shop/twin", "10.1.0.4"),
    a_pod("back/twin", "10.1.0.4"),
    a_service("shop/web", "10.96.0.1"),
    a_node("n1", "10.0.0.1"),
)


@pytest.mark.parametrize(
    ("type_url", "name", "ref"),
    [
        (names.ADDRESS, POD, (mesh.Workload, "shop/web-1")),
        (names.ADDRESS, "c/g/ServiceEntry/shop/api/0", (mesh.Workload, "shop/api/0")),
        (names.ADDRESS, SERVICE, (mesh.Service, "shop/web")),
        (names.ADDRESS, "shop/api.example.com", (mesh.Service, "shop/api.example.com")),
        (names.AUTHORIZATION, "shop/p", (mesh.AuthorizationPolicy, "shop/p")),
        (names.NOUN, "node/n1", (mesh.Node, "n1")),
        (names.NOUN, "namespace/shop", (mesh.Namespace, "shop")),
        (names.NOUN, "peer-authentication/shop/p", (mesh.PeerAuthentication, "shop/p")),
        (names.NOUN, "traffic-policy/shop/p", (mesh.TrafficPolicy, "shop/p")),
        (names.NOUN, "authorization-policy/shop/p", (mesh.AuthorizationPolicy, "shop/p")),
        (names.NOUN, "mesh", None),
        (names.NOUN, "roots", None),
    ],
)
def test_a_name_stands_for_one_noun(type_url: str, name: str, ref: names.Ref | None) -> None:
    assert names.ref(type_url, name) == ref


@pytest.mark.parametrize(
    ("type_url", "name"),
    [
        (names.ADDRESS, ""),
        (names.ADDRESS, "/10.1.0.1"),
        (names.ADDRESS, "a/b/c"),
        (names.AUTHORIZATION, "p"),
        (names.AUTHORIZATION, "a/b/c"),
        (names.NOUN, "node"),
        (names.NOUN, "pod/x"),
        ("type.googleapis.com/envoy.config.cluster.v3.Cluster", "x"),
    ],
)
def test_other_names_are_an_error_that_says_so(type_url: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' names no "):
        names.ref(type_url, name)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (POD, [POD]),
        ("/10.1.0.1", [POD]),
        ("/fd00::1", [POD]),
        ("/10.1.0.3", ["Kubernetes//Pod/shop/alone"]),
        (SERVICE, [SERVICE, POD, "Kubernetes//Pod/shop/web-2"]),
        ("/10.96.0.1", [SERVICE, POD, "Kubernetes//Pod/shop/web-2"]),
        ("/10.1.0.4", ["Kubernetes//Pod/back/twin", "Kubernetes//Pod/shop/twin"]),
        ("/10.0.0.1", []),
        ("/9.9.9.9", []),
        ("/nonsense", []),
        ("nonsense", []),
        ("shop/none.shop.svc.cluster.local", ["shop/none.shop.svc.cluster.local"]),
    ],
)
def test_an_address_is_its_owners_and_a_service_comes_with_its_workloads(key: str, found: list[str]) -> None:
    assert [*names.lookup(WORLD, names.ADDRESS, key)] == found


def test_other_types_are_asked_for_by_name_only() -> None:
    assert [*names.lookup(WORLD, names.AUTHORIZATION, "shop/p")] == ["shop/p"]
    assert [*names.keys(WORLD, names.AUTHORIZATION, "shop/p")] == ["shop/p"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (POD, {POD, "/10.1.0.1", "/fd00::1", SERVICE, "/10.96.0.1"}),
        (SERVICE, {SERVICE, "/10.96.0.1"}),
        ("Kubernetes//Pod/shop/host", {"Kubernetes//Pod/shop/host"}),
        ("Kubernetes//Pod/shop/none", {"Kubernetes//Pod/shop/none"}),
    ],
)
def test_a_resource_is_sent_to_whoever_asked_by_one_of_its_keys(name: str, keys: set[str]) -> None:
    assert {*names.keys(WORLD, names.ADDRESS, name)} == keys


def test_the_alias_of_an_address_has_no_network() -> None:
    assert names.of_address(IP("::ffff:10.0.0.1")) == "/10.0.0.1"
