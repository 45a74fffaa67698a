"""Applying, deleting and labelling, as an API server would say."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ambient.lab import cluster
from ambient.lab.cluster import target
from ambient.lab.errors import Misused, Refused
from ambient.sources.errors import Place
from tests.lab.builders import a_namespace, a_node, a_pod, a_service, applied

POD = target("pod/shop/web")
SERVICE = target("service/shop/web")


def test_a_pod_gets_a_uid_and_the_emptiest_node() -> None:
    found = applied(
        a_node("node1"), a_node("node2"), a_namespace(), a_pod("one", nodeName="node1"), a_pod("two"), a_pod("web")
    )
    assert found[target("pod/shop/two")]["spec"]["nodeName"] == "node2"
    assert found[POD]["spec"]["nodeName"] == "node1"
    assert len({body["metadata"].get("uid") for body in found.values()}) == 1 + 6  # those of the start have none


def test_what_is_there_keeps_uid_node_status_and_labels_set_since() -> None:
    before = applied(a_node(), a_namespace(), a_pod(), a_service())
    before = cluster.labelled(before, POD, ["version=2"])
    before = {**before, POD: {**before[POD], "status": {"phase": "Running"}}}
    after = applied(a_pod(), a_service(port=81), to=before)
    assert after[POD] == before[POD]
    assert after[SERVICE]["spec"]["clusterIP"] == before[SERVICE]["spec"]["clusterIP"]
    assert after[SERVICE]["spec"]["ports"][0]["port"] == 81


def test_a_change_leaves_the_old_objects_alone() -> None:
    before = applied(a_node(), a_namespace(), a_pod())
    kept = copy.deepcopy(before)
    cluster.labelled(before, POD, ["a=b"])
    applied(a_pod("other"), to=before)
    assert before == kept


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        pytest.param({}, ["IPv4"], id="single stack is IPv4"),
        pytest.param({"ipFamilies": ["IPv6"]}, ["IPv6"], id="IPv6 only"),
        pytest.param({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"], id="dual stack"),
        pytest.param(
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"], id="IPv6 comes first"
        ),
        pytest.param({"clusterIP": "10.96.3.4"}, ["IPv4"], id="given"),
        pytest.param({"clusterIP": "fd00:96::77"}, ["IPv6"], id="given IPv6"),
        pytest.param({"clusterIP": "None"}, [], id="headless"),
    ],
)
def test_a_service_gets_addresses_of_its_families(spec: dict[str, Any], families: list[str]) -> None:
    found = cluster.vips(applied(a_namespace(), a_service(**spec))[SERVICE])
    assert [f"IPv{ip.version}" for ip in found] == families
    if spec.get("clusterIP", "None") != "None":
        assert [str(ip) for ip in found] == [spec["clusterIP"]]


def test_services_never_share_an_address() -> None:
    found = applied(a_namespace(), *(a_service(f"s{n}", ipFamilyPolicy="PreferDualStack") for n in range(20)))
    vips = [ip for key, body in found.items() if key.kind == "Service" for ip in cluster.vips(body)]
    assert len(vips) == len(set(vips)) == 40


@pytest.mark.parametrize(
    ("manifests", "says"),
    [
        pytest.param(
            [a_node(), a_pod(namespace="nowhere")],
            "document 2 (Pod nowhere/web): metadata.namespace: expected a namespace that exists",
            id="no namespace",
        ),
        pytest.param([a_namespace(), a_pod()], "spec.nodeName: expected a node, but there is none", id="no node"),
        pytest.param(
            [a_node(), a_namespace(), a_pod(nodeName="x")], "expected a node (node1), found 'x'", id="bad node"
        ),
        pytest.param(
            [a_namespace(), a_service(clusterIP="192.0.2.1")],
            "spec.clusterIP: expected an address in 10.96.0.0/16, found 192.0.2.1",
            id="foreign address",
        ),
        pytest.param(
            [a_namespace(), a_service(clusterIP="nonsense")],
            "expected an IP address, or None, found 'nonsense'",
            id="no address",
        ),
        pytest.param(
            [a_namespace(), a_service("a", clusterIP="10.96.0.9"), a_service("b", clusterIP="10.96.0.9")],
            "expected an address that no other service has, found 10.96.0.9",
            id="address taken",
        ),
        pytest.param(
            [a_namespace(), a_namespace()],
            "test: document 2 (Namespace shop): expected one definition of this object, found it in document 1 too",
            id="twice",
        ),
    ],
)
def test_what_cannot_be_is_refused(manifests: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(Refused) as caught:
        applied(*manifests)
    assert says in str(caught.value)


def test_a_fixed_address_is_not_given_to_a_service_that_takes_any() -> None:
    found = applied(a_namespace(), a_service("any"), a_service("fixed", clusterIP="10.96.0.10"))
    assert found[target("service/shop/any")]["spec"]["clusterIP"] == "10.96.0.11"


def test_a_service_may_change_its_family() -> None:
    before = applied(a_namespace(), a_service(ipFamilies=["IPv4"]))
    after = applied(a_service(ipFamilies=["IPv6"]), to=before)
    assert [ip.version for ip in cluster.vips(after[SERVICE])] == [6]


def test_a_running_pods_spec_cannot_change() -> None:
    before = applied(a_node(), a_namespace(), a_pod())
    with pytest.raises(Refused, match=r"spec\.containers: expected .* only its labels and annotations can change"):
        applied(a_pod(command=["sleep", "1"]), to=before)


def gone(objects: cluster.Objects, *names: str) -> tuple[cluster.Objects, list[str]]:
    left, errors = cluster.deleted(objects, {target(name): Place("test", 1) for name in names})
    return left, [str(error) for error in errors]


def test_deleting_a_namespace_takes_what_is_in_it_along_and_a_node_its_pods() -> None:
    before = applied(a_node("node1"), a_node("node2"), a_namespace(), a_pod(nodeName="node1"), a_service())
    without_namespace, errors = gone(before, "ns/shop")
    assert errors == []
    assert not [key for key in without_namespace if key.namespace == "shop"]
    without_node, _ = gone(before, "node/node1")
    assert POD not in without_node
    assert SERVICE in without_node


def test_what_is_not_there_or_always_there_cannot_be_deleted() -> None:
    _, errors = gone(applied(a_namespace()), "ns/shp", "ns/default", "pod/shop/web")
    assert errors == [
        "test: document 1 (Namespace shp): expected an object that exists, found none: did you mean shop?",
        "test: document 1 (Namespace default): expected something that can be deleted,"
        " found what belongs to every cluster",
        "test: document 1 (Pod shop/web): expected an object that exists, found none: there is no Pod at all",
    ]


def test_labels_are_set_and_taken_away() -> None:
    found = applied(a_namespace("shop", tier="gold"))
    found = cluster.labelled(found, target("ns/shop"), ["ambient.dev/mode=enabled", "tier-", "never-there-"])
    assert found[target("ns/shop")]["metadata"]["labels"] == {
        "ambient.dev/mode": "enabled",
        "kubernetes.io/metadata.name": "shop",
    }


@pytest.mark.parametrize("change", ["nonsense", "=x", "-", "", "a b=c", "a=b c", "a/b/c=d", "x" * 64 + "=y"])
def test_a_label_that_is_none_is_refused(change: str) -> None:
    with pytest.raises(Misused, match="expected"):
        cluster.labelled(cluster.INITIAL, target("ns/default"), [change])


@pytest.mark.parametrize("name", ["web", "shop/web", "ns/", "pod/web", "pod//web", "svc/shop/web", ""])
def test_a_target_that_is_none_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(Misused, match="expected ns/NAME, node/NAME, pod/NAMESPACE/NAME or service/NAMESPACE/NAME"):
        target(name)


def test_a_label_for_nobody_is_refused_with_a_hint() -> None:
    with pytest.raises(Refused, match=r"Namespace defualt does not exist; did you mean default\?"):
        cluster.labelled(cluster.INITIAL, target("ns/defualt"), ["a=b"])
