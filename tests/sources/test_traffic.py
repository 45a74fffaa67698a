"""TrafficPolicy manifests become nouns; what cannot be read refuses."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ambient.model import mesh
from ambient.model.mesh import OutboundMode
from ambient.sources import manifests


def translate(spec: Any, version: str = "ambient.dev/v1alpha1", **metadata: Any) -> manifests.Translated:
    metadata = {"name": "p", "namespace": "shop"} | metadata
    return manifests.translate({"apiVersion": version, "kind": "TrafficPolicy", "metadata": metadata, "spec": spec})


def test_it_is_read_whole() -> None:
    found = translate(
        {
            "selector": {"matchLabels": {"app": "client"}},
            "outbound": {
                "mtls": "Required",
                "unknownDestinations": "Refuse",
                "allowed": [{"cidrs": ["198.51.100.7/24", "2001:db8::1"]}, {"cidrs": ["203.0.113.7"], "ports": [443]}],
            },
        },
        creationTimestamp="2026-01-01T00:00:00Z",
    )
    assert found.object == mesh.TrafficPolicy(
        namespace="shop",
        name="p",
        selector={"app": "client"},
        outbound=OutboundMode.REGISTRY_ONLY,
        allowed=(
            mesh.Destinations(
                networks=(ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::1/128"))
            ),
            mesh.Destinations(networks=(ipaddress.ip_network("203.0.113.7/32"),), ports=frozenset({443})),
        ),
        require_mtls=True,
        created="2026-01-01T00:00:00Z",
    )


def test_what_is_not_said_is_left_to_the_next_wider_word() -> None:
    optional = translate({"outbound": {"mtls": "Optional"}}).object
    assert isinstance(optional, mesh.TrafficPolicy)
    assert (optional.outbound, optional.require_mtls, optional.selector) == (None, False, {})
    allow = translate({"outbound": {"unknownDestinations": "Allow"}}).object
    assert isinstance(allow, mesh.TrafficPolicy)
    assert (allow.outbound, allow.require_mtls) == (OutboundMode.ALLOW_ANY, None)


def refusing(allowed: Any) -> dict[str, Any]:
    return {"outbound": {"unknownDestinations": "Refuse", "allowed": allowed}}


WRONG = {
    "no spec": (None, "spec: expected a mapping with outbound"),
    "nothing said": ({"outbound": {}}, "spec.outbound: expected mtls or unknownDestinations"),
    "no outbound": ({"selector": {}}, "spec.outbound: expected mtls or unknownDestinations"),
    "a field nobody knows": (
        {"outbound": {"mtls": "Required"}, "inbound": {}},
        "spec.inbound: expected no such field",
    ),
    "a misspelt field": (
        {"outbound": {"mtls": "Required", "unknownDestination": "Refuse"}},
        "spec.outbound.unknownDestination: expected no such field (did you mean unknownDestinations?)",
    ),
    "a word nobody knows": ({"outbound": {"mtls": "STRICT"}}, "spec.outbound.mtls: expected Optional or Required"),
    "exceptions of nothing": (
        {"outbound": {"mtls": "Required", "allowed": [{"cidrs": ["10.0.0.0/8"]}]}},
        "spec.outbound.allowed: expected unknownDestinations: Refuse beside it",
    ),
    "no network": (refusing([{"ports": [443]}]), "spec.outbound.allowed[0].cidrs: expected at least one address"),
    "a host name": (refusing([{"cidrs": ["db.example"]}]), "spec.outbound.allowed[0].cidrs[0]: expected an IP address"),
    "no ports": (
        refusing([{"cidrs": ["10.0.0.0/8"], "ports": []}]),
        "spec.outbound.allowed[0].ports: expected at least one port, or no such field",
    ),
    "port 0": (
        refusing([{"cidrs": ["10.0.0.0/8"], "ports": [0]}]),
        "spec.outbound.allowed[0].ports[0]: expected a port number",
    ),
}


@pytest.mark.parametrize(("spec", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_by_path_and_what_stands_instead_refuses(spec: Any, text: str) -> None:
    found = translate(spec, creationTimestamp="2026")
    assert found.object is None
    (problem,) = found.problems
    assert f"{problem.path}: expected {problem.expected}".startswith(text)
    stands = found.stand_in
    assert isinstance(stands, mesh.TrafficPolicy)
    assert (stands.outbound, stands.allowed, stands.require_mtls) == (OutboundMode.REGISTRY_ONLY, (), True)
    assert stands.name == "p (unreadable: refuses)"


def test_what_stands_instead_holds_for_what_was_selected_or_else_for_the_whole_scope_before_all_others() -> None:
    bad = {"outbound": {"mtls": "x"}}
    known = translate(bad | {"selector": {"matchLabels": {"app": "web"}}}, creationTimestamp="2026").stand_in
    unknown = translate(bad | {"selector": {"matchLabels": []}}, creationTimestamp="2026").stand_in
    assert isinstance(known, mesh.TrafficPolicy)
    assert isinstance(unknown, mesh.TrafficPolicy)
    assert (known.selector, known.created) == ({"app": "web"}, "2026")
    assert (unknown.selector, unknown.created) == ({}, "")


def test_it_is_of_our_own_group_only() -> None:
    found = translate({"outbound": {"mtls": "Required"}}, version="security.istio.io/v1")
    assert (found.object, found.problems) == (None, ())
    assert "of no concern" in found.note
