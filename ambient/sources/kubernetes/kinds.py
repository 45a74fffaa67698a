"""Which kinds are watched, under which path, and which of their fields are kept. Data only.

A shape names the fields that ambient.sources.core reads; the decoder steps over all others at C speed, which is most of
an object (managedFields, environments, volumes). Policies are kept whole: a field that nobody knows is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict


# The leaves are untyped on purpose: what is wrong with them is for the readers to say, by path.
class Metadata(TypedDict, total=False):
    name: Any
    namespace: Any
    uid: Any
    generation: Any
    resourceVersion: Any
    creationTimestamp: Any
    deletionTimestamp: Any
    labels: Any
    annotations: Any
    ownerReferences: Any


class Probe(TypedDict, total=False):
    httpGet: Any
    tcpSocket: Any
    grpc: Any


class Hook(TypedDict, total=False):
    httpGet: Any


class Lifecycle(TypedDict, total=False):
    postStart: Hook | None
    preStop: Hook | None


class Container(TypedDict, total=False):
    ports: Any
    restartPolicy: Any
    startupProbe: Probe | None
    livenessProbe: Probe | None
    readinessProbe: Probe | None
    lifecycle: Lifecycle | None


class Condition(TypedDict, total=False):
    type: Any
    status: Any


class PodSpec(TypedDict, total=False):
    nodeName: Any
    serviceAccountName: Any
    hostNetwork: Any
    containers: list[Container] | None
    initContainers: list[Container] | None


class PodStatus(TypedDict, total=False):
    phase: Any
    podIP: Any
    podIPs: Any
    conditions: list[Condition] | None


class Pod(TypedDict, total=False):
    metadata: Metadata
    spec: PodSpec | None
    status: PodStatus | None


class ServiceSpec(TypedDict, total=False):
    type: Any
    clusterIP: Any
    clusterIPs: Any
    selector: Any
    ports: Any
    internalTrafficPolicy: Any
    publishNotReadyAddresses: Any
    trafficDistribution: Any


class Service(TypedDict, total=False):
    metadata: Metadata
    spec: ServiceSpec | None


class NodeSpec(TypedDict, total=False):
    podCIDRs: Any


class NodeStatus(TypedDict, total=False):
    addresses: Any


class Node(TypedDict, total=False):
    metadata: Metadata
    spec: NodeSpec | None
    status: NodeStatus | None


class Namespace(TypedDict, total=False):
    metadata: Metadata


class Version(TypedDict, total=False):
    name: Any
    served: Any


class DefinitionSpec(TypedDict, total=False):
    versions: list[Version] | None


class DefinitionStatus(TypedDict, total=False):
    conditions: list[Condition] | None


class Definition(TypedDict, total=False):
    metadata: Metadata
    spec: DefinitionSpec | None
    status: DefinitionStatus | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind as the API server serves it."""

    kind: str
    plural: str
    group: str = ""  # empty: the core group
    versions: tuple[str, ...] = ("v1",)  # the more preferred first; several only for what a CRD defines
    fields: str = ""  # field selector
    shape: Any = dict[str, Any]  # what is kept of an object

    @property
    def name(self) -> str:
        """As RBAC and error messages have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    def path(self, version: str) -> str:
        return f"/{'apis' if self.group else 'api'}/{self.api_version(version)}/{self.plural}"


# A pod that is finished has given its addresses back and will never run again: thousands of a CronJob's are not kept.
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
CORE = (
    Resource(kind="Namespace", plural="namespaces", shape=Namespace),
    Resource(kind="Node", plural="nodes", shape=Node),
    Resource(kind="Service", plural="services", shape=Service),
    Resource(kind="Pod", plural="pods", shape=Pod, fields=UNFINISHED),
)
# Of these a cluster may have both groups, one or none.
POLICIES = (
    *(
        Resource(kind=kind, plural=plural, group=group, versions=versions)
        for group, versions in (("ambient.dev", ("v1alpha1",)), ("security.istio.io", ("v1", "v1beta1")))
        for kind, plural in (
            ("AuthorizationPolicy", "authorizationpolicies"),
            ("PeerAuthentication", "peerauthentications"),
        )
    ),
    Resource(kind="TrafficPolicy", plural="trafficpolicies", group="ambient.dev", versions=("v1alpha1",)),
)


def definition_of(resource: Resource) -> Resource:
    """The one CustomResourceDefinition that says whether, and in which versions, a kind is served."""
    return Resource(
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        group="apiextensions.k8s.io",
        fields=f"metadata.name={resource.name}",
        shape=Definition,
    )
