"""AuthorizationPolicy and PeerAuthentication to the mesh's nouns. Pure and strict: an unknown field is an error.

The schema is Istio's, in both API groups. A typo in a policy must never make it wider, so nothing is guessed. The
closed_* readers make what stands for a policy that cannot be read, in a World that cannot wait until it is mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ambient.model import mesh
from ambient.sources.reading import Spot

T = TypeVar("T")
PORT = re.compile(r"[1-9][0-9]{0,4}")
DRY_RUN = ("ambient.dev/dry-run", "istio.io/dry-run")
SOURCE_L4 = {
    "principals": "principals",
    "namespaces": "namespaces",
    "serviceAccounts": "service_accounts",
    "ipBlocks": "source_ips",
}
OPERATION_L4 = {"ports": "destination_ports"}
CONDITION_L4 = {
    "source.ip": "source_ips",
    "source.namespace": "namespaces",
    "source.principal": "principals",
    "destination.ip": "destination_ips",
    "destination.port": "destination_ports",
}
SOURCE_L7 = ("requestPrincipals", "remoteIpBlocks")
OPERATION_L7 = ("hosts", "methods", "paths")
CONDITION_L7 = ("remote.ip", "connection.sni")
CONDITION_L7_PREFIXES = ("request.", "experimental.envoy.filters.")
MODES: Mapping[str, mesh.MtlsMode | None] = {"UNSET": None, **{mode.value: mode for mode in mesh.MtlsMode}}


def authorization_policy(doc: Spot) -> mesh.AuthorizationPolicy:
    metadata = doc.get("metadata")
    spec = doc.get("spec").mapping("selector", "targetRef", "targetRefs", "action", "provider", "rules")
    namespace = metadata.get("namespace").text("default")
    action = _action(spec)
    targets = _targets(spec)
    if spec.get("selector") and (spec.get("targetRef") or spec.get("targetRefs")):
        spec.get("selector").wrong("either selector or targetRefs", "both")
    return mesh.AuthorizationPolicy(
        namespace=namespace,
        name=metadata.get("name").text(),
        action=action,
        selector=selector(spec),
        rules=tuple(_rule(rule, namespace) for rule in spec.get("rules").items()),
        dry_run=any(metadata.at("annotations", key).one_of({"true": True, "false": False}, False) for key in DRY_RUN),
        targets=targets,
    )


def closed_authorization_policy(doc: Spot) -> mesh.AuthorizationPolicy:
    """Refuses everybody everything at whatever the policy selects: all of its scope, if that cannot be told."""
    metadata, spec = doc.get("metadata"), doc.get("spec")
    annotations = metadata.get("annotations")
    return mesh.AuthorizationPolicy(
        namespace=metadata.get("namespace").text("default"),
        name=f"{metadata.get('name').text()} (unreadable: denies all)",
        action=mesh.Action.DENY,
        selector=readable(selector, spec) or {},
        rules=(mesh.Rule(),),
        dry_run=any(annotations.get(key).value == "true" for key in DRY_RUN),
        targets=() if spec.get("selector") else readable(_targets, spec) or (),
    )


def closed_peer_authentication(doc: Spot) -> mesh.PeerAuthentication:
    """STRICT on every port of what the policy selects. If that cannot be told: of its whole scope, before any other."""
    metadata = doc.get("metadata")
    matching = readable(selector, doc.get("spec"))
    return mesh.PeerAuthentication(
        namespace=metadata.get("namespace").text("default"),
        name=f"{metadata.get('name').text()} (unreadable: STRICT)",
        selector=matching or {},
        mode=mesh.MtlsMode.STRICT,
        created="" if matching is None else metadata.get("creationTimestamp").text(),
    )


def readable(read: Callable[[Spot], T], spec: Spot) -> T | None:
    """What is read, if it has no problem of its own. A spec that is no mapping has nothing that could be read."""
    alone = Spot(spec.value)
    found = read(alone.mapping())
    return None if alone.problems else found


def _action(spec: Spot) -> mesh.Action:
    spot = spec.get("action")
    if spot.value in ("CUSTOM", "AUDIT"):
        spot.wrong("ALLOW or DENY (CUSTOM and AUDIT need an L7 proxy, the mesh does not enforce them)")
        return mesh.Action.DENY
    if spec.get("provider"):
        spec.get("provider").wrong("no provider (it belongs to action CUSTOM, which the mesh does not enforce)")
    return spot.one_of({action.value: action for action in mesh.Action}, mesh.Action.ALLOW)


def _targets(spec: Spot) -> tuple[str, ...]:
    one = spec.get("targetRef")
    several = [*spec.get("targetRefs").items(), *([one] if one else [])]
    found = []
    for reference in several:
        reference.mapping("group", "kind", "name", "namespace")
        names = [_text(reference.get(name).required(f"a {name}")) or "" for name in ("kind", "name")]
        reference.get("group").text(), reference.get("namespace").text()
        found.append("/".join(names))
    return tuple(found)


def selector(spec: Spot) -> Mapping[str, str]:
    labels = spec.get("selector").mapping("matchLabels").get("matchLabels")
    found = labels.labels()
    for key, value in found.items():
        if not key or "*" in key + value:
            labels.get(key).wrong("a label without wildcards", repr(f"{key}={value}"))
    return found


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a rule, parted into what L4 can judge and whether there was more."""

    match: mesh.Match
    needs_l7: bool


def _rule(rule: Spot, namespace: str) -> mesh.Rule:
    """L7 fields are left out and remembered. An element that had nothing else holds for any connection, and so does its
    clause: a DENY rule must not become harmless because only a part of it can be judged."""
    if not rule:
        rule.wrong("a mapping ({} for a rule that matches everything)")
    rule.mapping("from", "to", "when")
    elements: list[list[Element]] = []
    for name, inside, read in (("from", "source", _source), ("to", "operation", _operation)):
        clause = rule.get(name)
        if _is_empty(rule, name):
            clause.wrong("at least one element, or no such field", "none")
        elements.append([read(_only(item, inside), namespace) for item in clause.items()])
    if _is_empty(rule, "when"):
        rule.get("when").wrong("at least one element, or no such field", "none")
    elements += [[_condition(item, namespace)] for item in rule.get("when").items()]
    clauses = [
        tuple(element.match for element in clause)
        for clause in elements
        if clause and not any(element.needs_l7 and element.match == mesh.Match() for element in clause)
    ]
    return mesh.Rule(clauses=tuple(clauses), needs_l7=any(e.needs_l7 for clause in elements for e in clause))


def _is_empty(rule: Spot, clause: str) -> bool:
    """Written, and with nothing in it: what somebody took out by a comment asks for everything now."""
    return isinstance(rule.value, Mapping) and clause in rule.value and rule.value[clause] in (None, [])


def _only(item: Spot, name: str) -> Spot:
    if not item.required(f"a mapping with {name}"):
        return item.get(name)
    return item.mapping(name).get(name).required("a mapping with at least one field")


def _negative(name: str) -> str:
    return "not" + name[0].upper() + name[1:]


def _source(source: Spot, namespace: str) -> Element:
    element = _element(source, SOURCE_L4, SOURCE_L7, namespace)
    for prefix in ("serviceAccounts", "notServiceAccounts"):
        if source.get(prefix) and (source.get("principals") or source.get("namespaces")):
            source.get(prefix).wrong("no principals or namespaces beside it", "both")
    return element


def _operation(operation: Spot, namespace: str) -> Element:
    return _element(operation, OPERATION_L4, OPERATION_L7, namespace)


def _element(spot: Spot, l4: Mapping[str, str], l7: Iterable[str], namespace: str) -> Element:
    known = [variant for name in (*l4, *l7) for variant in (name, _negative(name))]
    _some(spot.mapping(*known), known, "at least one field with a value")
    fields: dict[str, tuple[object, ...]] = {}
    for name, attribute in l4.items():
        fields[attribute] = _values(spot.get(name), attribute, namespace)
        fields["not_" + attribute] = _values(spot.get(_negative(name)), attribute, namespace)
    beyond = [_beyond(spot.get(variant), name) for name in l7 for variant in (name, _negative(name))]
    return Element(mesh.Match(**fields), any(beyond))  # type: ignore[arg-type]  # _values() gives each its own type


def _beyond(spot: Spot, name: str) -> tuple[object, ...]:
    """Not judged at L4, but a waypoint would."""
    return _each(spot, Spot.network) if name == "remoteIpBlocks" else _texts(spot)


def _some(spot: Spot, names: Iterable[str], expected: str) -> None:
    """Whether there is one of the lists, and each that is has an element. What was said already is not said again."""
    for name in names:
        if _is_empty(spot, name):
            spot.get(name).wrong("at least one value, or no such field", "none")
    complained = any(problem.path.startswith(spot.path) for problem in spot.problems)
    if spot and not complained and not any(spot.get(name).value not in (None, []) for name in names):
        spot.wrong(expected, "none")


def _condition(item: Spot, namespace: str) -> Element:
    if not item.required("a mapping with key and values"):
        return Element(mesh.Match(), True)
    key, values, not_values = item.get("key"), item.get("values"), item.get("notValues")
    _some(
        item.mapping("key", "values", "notValues"),
        ("values", "notValues"),
        "values or notValues, with at least one value",
    )
    name = key.required("a condition's key, such as source.ip").text()
    if attribute := CONDITION_L4.get(name):
        fields = {
            attribute: _values(values, attribute, namespace),
            "not_" + attribute: _values(not_values, attribute, namespace),
        }
        return Element(mesh.Match(**fields), False)  # type: ignore[arg-type]  # as above
    _texts(values), _texts(not_values)
    beyond = name in CONDITION_L7 or any(name.startswith(each) and name != each for each in CONDITION_L7_PREFIXES)
    if not beyond and isinstance(key.value, str):
        prefixes = [f"{prefix}..." for prefix in CONDITION_L7_PREFIXES]
        key.wrong(" or ".join([*CONDITION_L4, *CONDITION_L7, *prefixes]))
    return Element(mesh.Match(), True)


def _values(spot: Spot, attribute: str, namespace: str) -> tuple[object, ...]:
    match attribute:
        case "source_ips" | "destination_ips":
            return _each(spot, Spot.network)
        case "destination_ports":
            return _each(spot, lambda item: item.parsed(_port, 'a port number from 1 to 65535, as text ("8080")'))
        case "principals":
            return _each(spot, _principal)
        case "namespaces":
            return _each(spot, _pattern)
        case "service_accounts":
            return _each(spot, lambda item: _service_account(item, namespace))
    return _texts(spot)


def _texts(spot: Spot) -> tuple[str, ...]:
    return _each(spot, _text)


def _text(item: Spot) -> str | None:
    text = item.text()
    if not text and isinstance(item.value, str | None):
        item.wrong("text that is not empty")
    return text or None


def _each(spot: Spot, read: Callable[[Spot], T | None]) -> tuple[T, ...]:
    return tuple(value for item in spot.items() if (value := read(item)) is not None)


def _pattern(item: Spot) -> str | None:
    """Elsewhere an asterisk would match nobody, and a DENY that matches nobody protects nobody."""
    text = _text(item)
    if text and text != "*" and "*" in text.removeprefix("*").removesuffix("*" if text[0] != "*" else ""):
        item.wrong("exact text, prefix*, *suffix or *")
        return None
    return text


def _principal(item: Spot) -> str | None:
    text = item.required("a principal").text()
    if not text or "://" in text:
        item.wrong("<trust domain>/ns/<namespace>/sa/<service account>, without a scheme; prefix*, *suffix or *")
        return None
    return _pattern(item)


def _service_account(item: Spot, namespace: str) -> str | None:
    parts = item.text().split("/")
    if len(parts) > 2 or not all(parts) or "*" in item.text():
        item.wrong("<service account> or <namespace>/<service account>, without wildcards")
        return None
    return "/".join(parts if len(parts) == 2 else [namespace, *parts])


def _port(text: str) -> int:
    """As one writes it: 080 may be meant as another base."""
    if not (PORT.fullmatch(text) and int(text) < 65536):
        raise ValueError(text)
    return int(text)


def peer_authentication(doc: Spot) -> mesh.PeerAuthentication:
    metadata = doc.get("metadata")
    spec = doc.get("spec").mapping("selector", "mtls", "portLevelMtls")
    ports = spec.get("portLevelMtls").mapping()
    found: dict[int, mesh.MtlsMode] = {}
    if isinstance(ports.value, Mapping):
        for key in ports.value:
            spot = ports.get(str(key))
            if not PORT.fullmatch(str(key)) or int(key) >= 65536:
                spot.wrong("a port number from 1 to 65535 as the key", repr(key))
                continue
            mode = replace(spot, value=ports.value[key]).mapping("mode").get("mode").one_of(MODES, None)
            if mode:
                found[int(key)] = mode
        if not ports.value:
            ports.wrong("at least one port, or no such field", "none")
    matching = selector(spec)
    if ports and not matching:
        ports.wrong("a selector beside it (port-level mTLS is for chosen workloads)", "none")
    return mesh.PeerAuthentication(
        namespace=metadata.get("namespace").text("default"),
        name=metadata.get("name").text(),
        selector=matching,
        mode=spec.get("mtls").mapping("mode").get("mode").one_of(MODES, None),
        port_modes=found,
        created=metadata.get("creationTimestamp").text(),
    )
