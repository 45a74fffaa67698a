"""Namespace, Node, Pod and Service manifests become nouns."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml

from ambient.model import mesh
from ambient.model.mesh import Locality, OutboundMode, SameNode, TrafficDistribution
from ambient.sources import manifests
from ambient.sources.core import Pod

IP = mesh.address


def read(text: str) -> Any:
    found = manifests.translate(yaml.safe_load(text))
    assert not found.problems, found.problems
    return found.object


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {k: merged(base.get(k, {}), v) if isinstance(v, dict) else v for k, v in (base | more).items()}


def a_manifest(kind: str, **more: Any) -> dict[str, Any]:
    return merged({"apiVersion": "v1", "kind": kind, "metadata": {"name": "web", "namespace": "shop"}}, more)


def translated(kind: str, **more: Any) -> Any:
    found = manifests.translate(a_manifest(kind, **more))
    assert not found.problems, found.problems
    return found.object


def complaint(kind: str, **more: Any) -> list[tuple[str, str, str]]:
    found = manifests.translate(a_manifest(kind, **more))
    assert found.object is None
    return [(p.path, p.expected, p.found) for p in found.problems]


def test_a_pod_is_read_whole() -> None:
    found = read("""
apiVersion: v1
kind: Pod
metadata:
  name: web-7d4b9-x2x1z
  namespace: shop
  uid: 0e5a
  labels: {app: web}
  annotations:
    ambient.dev/exclude-outbound-ports: "3306, 6379"
    ambient.dev/exclude-outbound-cidrs: 169.254.169.254,10.0.0.0/8,fd00::/8
    ambient.dev/exclude-inbound-ports: "9090"
  ownerReferences:
  - {kind: ReplicaSet, name: web-7d4b9, controller: true}
spec:
  nodeName: n1
  serviceAccountName: front
  initContainers:
  - {name: once, ports: [{name: once, containerPort: 1}]}
  - {name: stays, restartPolicy: Always, ports: [{name: admin, containerPort: 9}]}
  containers:
  - name: app
    ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}, {containerPort: 7}]
status:
  phase: Running
  podIP: 10.1.0.1
  podIPs: [{ip: 10.1.0.1}, {ip: "fd00::1"}]
  conditions: [{type: Initialized, status: "True"}, {type: Ready, status: "True"}]
""")
    assert found == Pod(
        workload=mesh.Workload(
            namespace="shop",
            name="web-7d4b9-x2x1z",
            uid="0e5a",
            node="n1",
            service_account="front",
            addresses=(IP("10.1.0.1"), IP("fd00::1")),
            labels={"app": "web"},
            ports={"http": 8080, "admin": 9},
            ready=True,
            capture=mesh.CaptureSettings(
                exclude_outbound_ports=frozenset({3306, 6379}),
                exclude_outbound_cidrs=tuple(
                    mesh.ipaddress.ip_network(text) for text in ("169.254.169.254", "10.0.0.0/8", "fd00::/8")
                ),
                exclude_inbound_ports=frozenset({9090}),
            ),
            owner="web",
        ),
        wants=None,
        sidecar=False,
    )


@pytest.mark.parametrize(("annotation", "uid"), [({"kubernetes.io/config.mirror": "3a5d"}, "3a5d"), ({}, "0e5a")])
def test_a_static_pod_has_the_uid_that_its_node_knows_it_by(annotation: dict[str, str], uid: str) -> None:
    pod = translated("Pod", metadata={"uid": "0e5a", "annotations": annotation})
    assert pod.workload.uid == uid


def test_a_pod_as_a_user_writes_it_has_defaults() -> None:
    pod = translated("Pod", metadata={"namespace": None}, spec={"containers": [{"name": "c", "image": "i"}]}).workload
    assert (pod.key, pod.service_account, pod.node, pod.addresses, pod.ready) == (
        "default/web",
        "default",
        "",
        (),
        False,
    )


LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
NOT_READY = {"conditions": [{"type": "Ready", "status": "False"}]}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.1.0.1"}


@pytest.mark.parametrize(
    ("more", "serves", "addresses"),
    [
        ({"status": READY}, "ready", 1),
        ({"status": READY | NOT_READY}, "", 1),
        ({"status": READY, "metadata": LEAVING}, "draining", 1),
        ({"status": READY | NOT_READY, "metadata": LEAVING}, "", 1),
        ({"status": READY | {"phase": "Succeeded"}}, "", 0),
        ({"status": READY | {"phase": "Failed"}, "metadata": LEAVING}, "", 0),
        ({"status": READY | {"podIP": ""}}, "ready", 0),
    ],
    ids=[
        "ready", "not ready", "leaving", "leaving and not ready", "done", "failed: the address may be another's",
        "no address yet",
    ],
)  # fmt: skip
def test_readiness_and_addresses_follow_the_status(more: dict[str, Any], serves: str, addresses: int) -> None:
    pod = translated("Pod", **more).workload
    assert (pod.ready, pod.draining, len(pod.addresses)) == (serves == "ready", serves == "draining", addresses)


@pytest.mark.parametrize(
    ("references", "owner"),
    [
        ([], "web"),
        ([{"kind": "ReplicaSet", "name": "a-b-5f6", "controller": True}], "a-b"),
        ([{"kind": "StatefulSet", "name": "db", "controller": True}], "db"),
        ([{"kind": "Job", "name": "nightly-28471000", "controller": True}], "nightly"),
        ([{"kind": "Job", "name": "once", "controller": True}], "once"),
        ([{"kind": "Thing", "name": "x"}, {"kind": "DaemonSet", "name": "log", "controller": True}], "log"),
    ],
)
def test_the_owner_is_what_a_person_made(references: list[dict[str, Any]], owner: str) -> None:
    assert translated("Pod", metadata={"ownerReferences": references}).workload.owner == owner


@pytest.mark.parametrize(
    ("labels", "wants"),
    [
        ({}, None),
        ({"ambient.dev/mode": "enabled"}, True),
        ({"ambient.dev/mode": "disabled"}, False),
        ({"istio.io/dataplane-mode": "ambient"}, True),
        ({"istio.io/dataplane-mode": "none"}, False),
        ({"istio.io/dataplane-mode": "something"}, None),
        ({"ambient.dev/mode": "disabled", "istio.io/dataplane-mode": "ambient"}, False),
    ],
)
def test_labels_ask_for_the_mesh(labels: dict[str, str], wants: bool | None) -> None:
    assert translated("Pod", metadata={"labels": labels}).wants is wants
    assert translated("Namespace", metadata={"labels": labels}).enrolled is bool(wants)


@pytest.mark.parametrize("place", ["labels", "annotations"])
def test_a_namespace_says_what_its_pods_may_dial(place: str) -> None:
    texts = {"ambient.dev/outbound": "registry-only", "ambient.dev/require-mtls": "true"}
    found = translated("Namespace", metadata={place: texts})
    assert (found.outbound, found.require_mtls) == (OutboundMode.REGISTRY_ONLY, True)
    assert (translated("Namespace").outbound, translated("Namespace").require_mtls) == (None, False)


@pytest.mark.parametrize("place", ["labels", "annotations"])
@pytest.mark.parametrize(("text", "wish"), [("mtls", SameNode.MTLS), ("direct", SameNode.DIRECT)])
def test_a_namespace_or_a_pod_says_how_it_is_dialled_on_its_node(place: str, text: str, wish: SameNode) -> None:
    metadata = {place: {"ambient.dev/same-node": text}}
    assert translated("Namespace", metadata=metadata).same_node is wish
    assert translated("Pod", metadata=metadata).workload.same_node is wish
    assert (translated("Namespace").same_node, translated("Pod").workload.same_node) == (None, None)


def test_a_node_has_addresses_and_a_place() -> None:
    found = read("""
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-a}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:244::/64"]}
status:
  addresses:
  - {type: InternalIP, address: 10.0.0.1}
  - {type: Hostname, address: n1}
  - {type: InternalIP, address: "fd00::1"}
  - {type: ExternalIP, address: 203.0.113.1}
""")
    assert found == mesh.Node(
        name="n1",
        addresses=(IP("10.0.0.1"), IP("fd00::1"), IP("203.0.113.1")),
        pod_networks=(ipaddress.ip_network("10.244.1.0/24"), ipaddress.ip_network("fd00:244::/64")),
        locality=Locality("eu", "eu-a"),
    )


def test_a_service_is_read_whole() -> None:
    found = read("""
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd96::1"]
  selector: {app: web}
  internalTrafficPolicy: Local
  publishNotReadyAddresses: true
  trafficDistribution: PreferClose
  ports:
  - {name: http, port: 80, targetPort: http, appProtocol: http}
  - {name: raw, port: 81, targetPort: 8081, protocol: TCP}
  - {name: same, port: 82}
  - {name: dns, port: 53, protocol: UDP}
""")
    assert found == mesh.Service(
        namespace="shop",
        name="web",
        vips=(IP("10.96.0.1"), IP("fd96::1")),
        ports=(
            mesh.ServicePort(name="http", port=80, target="http", app_protocol="http"),
            mesh.ServicePort(name="raw", port=81, target=8081),
            mesh.ServicePort(name="same", port=82, target=82),
        ),
        selector={"app": "web"},
        distribution=TrafficDistribution.SAME_ZONE,
        local_only=True,
        publish_not_ready=True,
    )


@pytest.mark.parametrize(
    ("spec", "vips"),
    [
        ({"clusterIP": "10.96.0.1"}, 1),
        ({"clusterIP": "None"}, 0),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, 0),
        ({}, 0),
        ({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 1}]}, 0),
    ],
)
def test_vips_are_where_there_are_any(spec: dict[str, Any], vips: int) -> None:
    assert len(translated("Service", spec=spec).vips) == vips


@pytest.mark.parametrize(
    ("field", "annotation", "expected"),
    [
        ("PreferSameZone", None, TrafficDistribution.SAME_ZONE),
        ("PreferSameNode", "PreferClose", TrafficDistribution.SAME_NODE),
        (None, "PreferSameNode", TrafficDistribution.SAME_NODE),
        (None, "Any", TrafficDistribution.ANY),
        (None, None, TrafficDistribution.ANY),
    ],
)
def test_the_field_for_traffic_distribution_goes_before_istios_annotation(
    field: str | None, annotation: str | None, expected: TrafficDistribution
) -> None:
    annotations = {"networking.istio.io/traffic-distribution": annotation}
    found = translated("Service", metadata={"annotations": annotations}, spec={"trafficDistribution": field})
    assert found.distribution is expected


WRONG = {
    "an address": ("Pod", {"status": {"podIP": "10.1.0"}}, "status.podIP", "an IP address", "'10.1.0'"),
    "one of several addresses": (
        "Pod",
        {"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": 7}]}},
        "status.podIPs[1].ip",
        "an IP address",
        "7",
    ),
    "a list": ("Pod", {"status": {"podIPs": "x"}}, "status.podIPs", "a list", "'x'"),
    "a mapping": ("Pod", {"status": [1]}, "status", "a mapping", "a list"),
    "a flag": ("Pod", {"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork", "true or false", "'yes'"),
    "our label": (
        "Namespace",
        {"metadata": {"labels": {"ambient.dev/mode": "on"}}},
        'metadata.labels["ambient.dev/mode"]',
        "disabled or enabled",
        "'on'",
    ),
    "a label that is no text": ("Pod", {"metadata": {"labels": {"v": 1}}}, "metadata.labels.v", "text", "1"),
    "our setting": (
        "Namespace",
        {"metadata": {"annotations": {"ambient.dev/outbound": "some"}}},
        'metadata.annotations["ambient.dev/outbound"]',
        "allow-any or registry-only",
        "'some'",
    ),
    "a port of a list": (
        "Pod",
        {"metadata": {"annotations": {"ambient.dev/exclude-inbound-ports": "80,http"}}},
        'metadata.annotations["ambient.dev/exclude-inbound-ports"]',
        "port numbers separated by commas",
        "'http'",
    ),
    "a block of a list": (
        "Pod",
        {"metadata": {"annotations": {"ambient.dev/exclude-outbound-cidrs": "10.0.0.0/33"}}},
        'metadata.annotations["ambient.dev/exclude-outbound-cidrs"]',
        "IP addresses or CIDR blocks separated by commas",
        "'10.0.0.0/33'",
    ),
    "a port": (
        "Service",
        {"spec": {"ports": [{"port": 70000}]}},
        "spec.ports[0].port",
        "a port number from 1 to 65535",
        "70000",
    ),
    "a distribution": (
        "Service",
        {"spec": {"trafficDistribution": "Near"}},
        "spec.trafficDistribution",
        "PreferClose or PreferSameNode or PreferSameZone",
        "'Near'",
    ),
    "a name": ("Pod", {"metadata": {"name": None}}, "metadata.name", "a name", "nothing"),
}


@pytest.mark.parametrize(("kind", "more", "path", "expected", "found"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_by_path(kind: str, more: dict[str, Any], path: str, expected: str, found: str) -> None:
    assert complaint(kind, **more) == [(path, expected, found)]


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = complaint(
        "Pod", metadata={"labels": {"ambient.dev/mode": "x"}}, status={"podIP": "x"}, spec={"hostNetwork": 1}
    )
    assert sorted(path for path, _, _ in found) == [
        'metadata.labels["ambient.dev/mode"]',
        "spec.hostNetwork",
        "status.podIP",
    ]


@pytest.mark.parametrize(
    "manifest", [None, 7, "text", [], {}, {"kind": "Pod"}, {"apiVersion": "v1", "kind": 7}], ids=str
)
def test_what_is_no_object_is_a_problem(manifest: object) -> None:
    found = manifests.translate(manifest)
    assert found.object is None
    assert found.problems


def test_kinds_of_no_concern_leave_a_note_and_ours_must_be_known() -> None:
    other = manifests.translate(a_manifest("Deployment", apiVersion="apps/v1"))
    assert (other.object, other.problems, other.note) == (None, (), "apps/v1 Deployment is of no concern to the mesh")
    (problem,) = manifests.translate(a_manifest("Waipoint", apiVersion="ambient.dev/v1alpha1")).problems
    assert problem.path == "kind"
    (problem,) = manifests.translate(
        a_manifest("AuthorizationPolicy", apiVersion="security.istio.io/v1alpha1")
    ).problems
    assert problem.path == "apiVersion"
