"""The nouns of the mesh, as immutable values. No I/O, no third-party imports, no decisions."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

NOTHING: Mapping[str, str] = MappingProxyType({})
TUNNEL_PORT = 15008


def address(text: str | bytes) -> IPAddress:
    """Parse an address (text, or 4 or 16 bytes); an IPv4-mapped one is returned as IPv4, so that equal hosts are equal.

    Raises ValueError when it is no address.
    """
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def packed16(ip: IPAddress) -> bytes:
    """The one address type of kernel and engine: 16 bytes, IPv4 mapped."""
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A workload's SPIFFE ID: spiffe://<trust domain>/ns/<namespace>/sa/<service account>."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return "spiffe://" + self.principal

    @property
    def principal(self) -> str:
        """The form policies are written in: without the scheme."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Read a SPIFFE ID of exactly this shape. Raises ValueError, naming the text, for any other."""
        scheme, _, rest = uri.partition("://")
        match rest.split("/"):
            case [domain, "ns", namespace, "sa", account] if scheme == "spiffe" and domain and namespace and account:
                return cls(domain, namespace, account)
        raise ValueError(f"{uri!r} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")


class OutboundMode(enum.Enum):
    """What a namespace's pods may dial that the mesh does not know."""

    ALLOW_ANY = "allow-any"
    REGISTRY_ONLY = "registry-only"


class SameNode(enum.Enum):
    """How two pods of one node talk: plainly, the kernel vouching for both, or through a tunnel all the same."""

    DIRECT = "direct"
    MTLS = "mtls"


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """What holds for the whole mesh."""

    trust_domain: str = "cluster.local"
    root_namespace: str = "ambient-system"
    outbound: OutboundMode = OutboundMode.ALLOW_ANY
    same_node: SameNode = SameNode.DIRECT


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a node is (topology.kubernetes.io/region and /zone); empty when unknown."""

    region: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    addresses: tuple[IPAddress, ...] = ()
    pod_networks: tuple[IPNetwork, ...] = ()  # spec.podCIDRs: its pods' addresses are from these, and nobody else's
    locality: Locality = Locality()


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    name: str
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    enrolled: bool = False
    outbound: OutboundMode | None = None  # None: the mesh's
    require_mtls: bool = False
    same_node: SameNode | None = None  # None: the mesh's


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """What of a pod's traffic stays outside the mesh at its owner's wish (ambient.dev/exclude-* annotations)."""

    exclude_outbound_ports: frozenset[int] = frozenset()
    exclude_outbound_cidrs: tuple[IPNetwork, ...] = ()
    exclude_inbound_ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One pod."""

    namespace: str
    name: str
    uid: str  # Kubernetes' pod UID: finds the pod's cgroup, and tells it from a namesake that came later
    node: str
    service_account: str = "default"
    addresses: tuple[IPAddress, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    ports: Mapping[str, int] = field(default_factory=dict)  # named container ports
    probe_ports: frozenset[int] = frozenset()  # where kubelet, from the pod's node, calls in the clear
    ready: bool = False
    draining: bool = False  # leaving but still serving: for those who find nobody else
    enrolled: bool = False
    captured: bool = True  # as far as is known; a pod that is enrolled no more may be for a moment: see tunnelled
    host_network: bool = False
    locality: Locality = Locality()
    capture: CaptureSettings = CaptureSettings()
    same_node: SameNode | None = None  # None: its namespace's
    owner: str = ""  # what telemetry calls the workload: the Deployment's name, or the pod's own

    @property
    def key(self) -> str:
        """namespace/name: unique in a World."""
        return f"{self.namespace}/{self.name}"

    @property
    def tunnelled(self) -> bool:
        """Whether it is reached through tunnels. Enrolled but not yet captured, it has nothing on their port."""
        return self.enrolled and self.captured and not self.host_network

    def identity(self, trust_domain: str) -> Identity:
        return Identity(trust_domain, self.namespace, self.service_account)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    name: str
    port: int
    target: int | str  # number, or the name of a container port
    app_protocol: str = ""


class TrafficDistribution(enum.Enum):
    ANY = ""
    SAME_ZONE = "PreferSameZone"  # PreferClose means the same
    SAME_NODE = "PreferSameNode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    namespace: str
    name: str
    vips: tuple[IPAddress, ...] = ()  # empty: headless
    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    distribution: TrafficDistribution = TrafficDistribution.ANY
    local_only: bool = False  # internalTrafficPolicy: Local
    publish_not_ready: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def hostname(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"


class Action(enum.Enum):
    ALLOW = "ALLOW"
    DENY = "DENY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One `from`, `to` or `when` element at L4. AND over the fields; in a field: any of the values, and none of not_*.

    Text values are exact, `prefix*`, `*suffix` or `*` (present). An element with every field empty matches nothing.
    Source: Istio's AuthorizationPolicy reference.
    """

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()  # "namespace/name"
    not_service_accounts: tuple[str, ...] = ()
    source_ips: tuple[IPNetwork, ...] = ()
    not_source_ips: tuple[IPNetwork, ...] = ()
    destination_ips: tuple[IPNetwork, ...] = ()
    not_destination_ips: tuple[IPNetwork, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """AND over the clauses; a clause is an OR of matches. No clause at all: matches every connection."""

    clauses: tuple[tuple[Match, ...], ...] = ()
    needs_l7: bool = False  # it names methods, paths, hosts, headers or claims: see policy.decide()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    namespace: str
    name: str
    action: Action = Action.ALLOW
    selector: Mapping[str, str] = field(
        default_factory=lambda: NOTHING
    )  # empty: the whole namespace, or mesh when in the root namespace
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    targets: tuple[str, ...] = ()  # targetRefs ("Kind/name"): a waypoint's policy, kept but not applied at L4

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """Places outside the mesh: each of the networks, at each of the ports (none: every port)."""

    networks: tuple[IPNetwork, ...]
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPolicy:
    """How pods may send. None: the wider policy's word."""

    namespace: str
    name: str
    selector: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    outbound: OutboundMode | None = None
    allowed: tuple[Destinations, ...] = ()  # though outbound is REGISTRY_ONLY
    require_mtls: bool | None = None
    created: str = ""  # RFC 3339, UTC: of two in one scope, the older one holds

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class MtlsMode(enum.Enum):
    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    namespace: str
    name: str
    selector: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    mode: MtlsMode | None = None  # None (UNSET): the parent's
    port_modes: Mapping[int, MtlsMode] = field(default_factory=dict)
    created: str = ""  # RFC 3339, UTC: of two in one scope, the older one holds

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"
