"""Worlds out of hypothesis: small, so that everything meets everything, and with every field of every noun in use."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from ambient.model import mesh
from ambient.model.world import World
from tests.model.builders import IP, a_world

NAMES = st.sampled_from(["a", "b", "root"])
KEYS = st.tuples(NAMES, st.sampled_from(["p", "q"]))
LABELS = st.sampled_from([{}, {"app": "x"}, {"app": "y"}, {"app": "x", "v": "1"}])
ADDRESSES = st.lists(
    st.sampled_from([IP("10.0.0.1"), IP("10.0.0.2"), IP("fd00::1"), IP("::")]), max_size=2, unique=True
).map(tuple)
NETWORKS = st.sampled_from(["10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "fd00::/16", "::/0"]).map(ipaddress.ip_network)
PORTS = st.sampled_from([1, 80, 65535])
PATTERNS = st.sampled_from(["*", "td/ns/a/sa/*", "*/sa/p", "td/ns/a/sa/p", "", "a", "a*b"])


def several(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=2).map(tuple)


ACCOUNTS = several(st.sampled_from(["a/p", "b/q"]))
MATCHES = st.builds(
    mesh.Match,
    principals=several(PATTERNS),
    not_principals=several(PATTERNS),
    namespaces=several(PATTERNS),
    not_namespaces=several(PATTERNS),
    service_accounts=ACCOUNTS,
    not_service_accounts=ACCOUNTS,
    source_ips=several(NETWORKS),
    not_source_ips=several(NETWORKS),
    destination_ips=several(NETWORKS),
    not_destination_ips=several(NETWORKS),
    destination_ports=several(PORTS),
    not_destination_ports=several(PORTS),
)
SIMPLE_MATCHES = st.one_of(
    st.builds(mesh.Match, principals=several(PATTERNS)),
    st.builds(mesh.Match, not_principals=several(PATTERNS)),
    st.builds(mesh.Match, destination_ports=several(PORTS)),
    st.builds(mesh.Match, not_source_ips=several(NETWORKS), namespaces=several(PATTERNS)),
    st.builds(mesh.Match, service_accounts=ACCOUNTS),
)
CLAUSES = several(st.lists(st.one_of(SIMPLE_MATCHES, MATCHES), min_size=1, max_size=2).map(tuple))
RULES = st.builds(mesh.Rule, clauses=CLAUSES, needs_l7=st.booleans())
MODES = st.sampled_from(mesh.MtlsMode)


def named(
    build: Any, keys: st.SearchStrategy[tuple[str, str]] = KEYS, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.builds(lambda key, **more: build(namespace=key[0], name=key[1], **more), keys, **fields)


POLICIES = named(
    mesh.AuthorizationPolicy,
    action=st.sampled_from(mesh.Action),
    selector=LABELS,
    rules=several(RULES),
    dry_run=st.booleans(),
    targets=st.sampled_from([(), (), ("Gateway/w",)]),
)
PEER_AUTHENTICATIONS = named(
    mesh.PeerAuthentication,
    selector=LABELS,
    mode=st.one_of(st.none(), MODES),
    port_modes=st.dictionaries(PORTS, MODES, max_size=2),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
)
TRAFFIC_POLICIES = named(
    mesh.TrafficPolicy,
    selector=LABELS,
    outbound=st.one_of(st.none(), st.sampled_from(mesh.OutboundMode)),
    allowed=several(st.builds(mesh.Destinations, networks=several(NETWORKS), ports=st.frozensets(PORTS))),
    require_mtls=st.one_of(st.none(), st.booleans()),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
)
WORKLOADS = named(
    mesh.Workload,
    uid=st.sampled_from(["", "u1", "u2"]),
    node=st.sampled_from(["", "n1", "n2"]),
    service_account=st.sampled_from(["default", "p"]),
    addresses=ADDRESSES,
    labels=LABELS,
    ports=st.dictionaries(st.sampled_from(["http", "grpc"]), PORTS),
    ready=st.booleans(),
    draining=st.booleans(),
    probe_ports=st.frozensets(PORTS, max_size=3),
    enrolled=st.booleans(),
    captured=st.booleans(),
    host_network=st.booleans(),
    locality=st.builds(mesh.Locality, st.sampled_from(["", "r"]), st.sampled_from(["", "z"])),
    capture=st.builds(
        mesh.CaptureSettings,
        exclude_outbound_ports=st.frozensets(PORTS),
        exclude_outbound_cidrs=several(NETWORKS),
        exclude_inbound_ports=st.frozensets(PORTS),
    ),
    same_node=st.one_of(st.none(), st.sampled_from(mesh.SameNode)),
    owner=st.sampled_from(["", "p", "deploy"]),
)
SERVICE_PORTS = st.builds(
    mesh.ServicePort,
    name=st.sampled_from(["", "http"]),
    port=PORTS,
    target=st.one_of(PORTS, st.sampled_from(["http", "grpc"])),
    app_protocol=st.sampled_from(["", "kubernetes.io/h2c"]),
)
SERVICES = named(
    mesh.Service,
    vips=ADDRESSES,
    ports=several(SERVICE_PORTS),
    selector=LABELS,
    distribution=st.sampled_from(mesh.TrafficDistribution),
    local_only=st.booleans(),
    publish_not_ready=st.booleans(),
)
NODES = st.builds(
    mesh.Node,
    name=st.sampled_from(["n1", "n2"]),
    addresses=ADDRESSES,
    pod_networks=several(NETWORKS),
    locality=st.builds(mesh.Locality, st.sampled_from(["", "r"]), st.sampled_from(["", "z"])),
)
NAMESPACES = st.builds(
    mesh.Namespace,
    name=NAMES,
    labels=LABELS,
    enrolled=st.booleans(),
    outbound=st.one_of(st.none(), st.sampled_from(mesh.OutboundMode)),
    require_mtls=st.booleans(),
    same_node=st.one_of(st.none(), st.sampled_from(mesh.SameNode)),
)
NOUNS = st.one_of(WORKLOADS, SERVICES, POLICIES, PEER_AUTHENTICATIONS, TRAFFIC_POLICIES, NODES, NAMESPACES)
REFS = st.one_of(
    st.tuples(st.just(mesh.Node), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just(mesh.Namespace), NAMES),
    st.tuples(
        st.sampled_from(
            [mesh.Workload, mesh.Service, mesh.AuthorizationPolicy, mesh.PeerAuthentication, mesh.TrafficPolicy]
        ),
        KEYS.map("/".join),
    ),
)
CONFIGS = st.builds(
    mesh.MeshConfig,
    trust_domain=st.sampled_from(["cluster.local", "td"]),
    root_namespace=st.sampled_from(["root", "a"]),
    outbound=st.sampled_from(mesh.OutboundMode),
    same_node=st.sampled_from(mesh.SameNode),
)
WORLDS = st.builds(lambda nouns, config: a_world(*nouns, config=config), st.lists(NOUNS, max_size=8), CONFIGS)
STEPS = st.tuples(st.lists(NOUNS, max_size=3), st.lists(REFS, max_size=2), st.one_of(st.none(), st.none(), CONFIGS))


def step(world: World, change: tuple[list[Any], list[Any], mesh.MeshConfig | None], revision: str) -> World:
    upserts, removals, config = change
    return world.replace(upserts, removals, revision=revision, mesh=config)
