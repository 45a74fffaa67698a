"""AuthorizationPolicy and PeerAuthentication manifests become nouns; a typo never makes a policy wider."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ambient.model import mesh
from ambient.model.mesh import Action, Match, MtlsMode, Rule
from ambient.sources import manifests


def translate(
    spec: Any, kind: str = "AuthorizationPolicy", version: str = "security.istio.io/v1", **metadata: Any
) -> Any:
    metadata = {"name": "p", "namespace": "shop"} | metadata
    return manifests.translate({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def read(spec: Any, **more: Any) -> Any:
    found = translate(spec, **more)
    assert not found.problems, found.problems
    return found.object


def problems(spec: Any, **more: Any) -> list[str]:
    found = translate(spec, **more)
    assert found.object is None or not found.problems
    return [f"{p.path}: expected {p.expected}, found {p.found}" for p in found.problems]


def nets(*texts: str) -> tuple[mesh.IPNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


@pytest.mark.parametrize("version", ["security.istio.io/v1", "security.istio.io/v1beta1", "ambient.dev/v1alpha1"])
def test_each_api_version_is_read(version: str) -> None:
    assert read({"action": "DENY", "rules": [{}]}, version=version).action is Action.DENY
    assert read({"mtls": {"mode": "STRICT"}}, version=version, kind="PeerAuthentication").mode is MtlsMode.STRICT


@pytest.mark.parametrize("spec", [None, {}, {"rules": []}, {"rules": None}, {"action": "ALLOW"}])
def test_an_empty_policy_allows_nothing(spec: Any) -> None:
    found = read(spec)
    assert (found.action, found.rules, dict(found.selector)) == (Action.ALLOW, (), {})


def test_a_policy_is_read_whole() -> None:
    found = read(
        {
            "selector": {"matchLabels": {"app": "web"}},
            "action": "DENY",
            "rules": [
                {
                    "from": [
                        {
                            "source": {
                                "principals": ["cluster.local/ns/a/sa/b", "*"],
                                "notPrincipals": ["x*"],
                                "namespaces": ["a"],
                                "notNamespaces": ["*b"],
                                "ipBlocks": ["10.1.2.3", "10.9.9.9/8", "fd00::/8"],
                                "notIpBlocks": ["::ffff:10.0.0.0/104"],
                            }
                        },
                        {"source": {"serviceAccounts": ["sa", "other/sa"], "notServiceAccounts": ["x"]}},
                    ],
                    "to": [{"operation": {"ports": ["80", "443"], "notPorts": ["81"]}}],
                    "when": [
                        {"key": "source.ip", "values": ["10.0.0.0/8"], "notValues": ["10.0.0.1"]},
                        {"key": "source.namespace", "notValues": ["c"]},
                        {"key": "source.principal", "values": ["*/sa/b"]},
                        {"key": "destination.ip", "values": ["10.0.0.9"]},
                        {"key": "destination.port", "values": ["80"], "notValues": ["81"]},
                    ],
                },
                {},
            ],
        }
    )
    assert found == mesh.AuthorizationPolicy(
        namespace="shop",
        name="p",
        action=Action.DENY,
        selector={"app": "web"},
        rules=(
            Rule(
                clauses=(
                    (
                        Match(
                            principals=("cluster.local/ns/a/sa/b", "*"),
                            not_principals=("x*",),
                            namespaces=("a",),
                            not_namespaces=("*b",),
                            source_ips=nets("10.1.2.3/32", "10.0.0.0/8", "fd00::/8"),
                            not_source_ips=nets("10.0.0.0/8"),
                        ),
                        Match(service_accounts=("shop/sa", "other/sa"), not_service_accounts=("shop/x",)),
                    ),
                    (Match(destination_ports=(80, 443), not_destination_ports=(81,)),),
                    (Match(source_ips=nets("10.0.0.0/8"), not_source_ips=nets("10.0.0.1")),),
                    (Match(not_namespaces=("c",)),),
                    (Match(principals=("*/sa/b",)),),
                    (Match(destination_ips=nets("10.0.0.9")),),
                    (Match(destination_ports=(80,), not_destination_ports=(81,)),),
                )
            ),
            Rule(),
        ),
    )


PORT_80 = Match(destination_ports=(80,))
L7 = {
    "beside an L4 field, the rest stays": (
        {"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]},
        ((PORT_80,),),
    ),
    "alone, its clause holds for any connection": ({"to": [{"operation": {"paths": ["/admin"]}}]}, ()),
    "one alternative alone, the clause holds too": (
        {"to": [{"operation": {"hosts": ["x"]}}, {"operation": {"ports": ["80"]}}]},
        (),
    ),
    "negative": ({"to": [{"operation": {"notMethods": ["GET"]}}]}, ()),
    "in a source": (
        {"from": [{"source": {"requestPrincipals": ["*"], "namespaces": ["a"]}}]},
        ((Match(namespaces=("a",)),),),
    ),
    "forwarded addresses": ({"from": [{"source": {"notRemoteIpBlocks": ["10.0.0.0/8"]}}]}, ()),
    "in a condition": (
        {"to": [{"operation": {"ports": ["80"]}}], "when": [{"key": "request.headers[x]", "values": ["y"]}]},
        ((PORT_80,),),
    ),
    "server name": ({"when": [{"key": "connection.sni", "notValues": ["y"]}]}, ()),
}


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(("rule", "clauses"), L7.values(), ids=L7.keys())
def test_what_needs_l7_is_left_out_and_remembered(rule: dict[str, Any], clauses: Any, action: str) -> None:
    assert read({"action": action, "rules": [rule]}).rules == (Rule(clauses=clauses, needs_l7=True),)


@pytest.mark.parametrize("key", ["istio.io/dry-run", "ambient.dev/dry-run"])
def test_the_dry_run_annotation(key: str) -> None:
    assert read({}, annotations={key: "true"}).dry_run
    assert not read({}, annotations={key: "false"}).dry_run
    assert problems({}, annotations={key: "yes"}) == [
        f"metadata.annotations[\"{key}\"]: expected false or true, found 'yes'"
    ]


def test_target_refs_are_remembered() -> None:
    reference = {"group": "", "kind": "Service", "name": "web"}
    assert read({"targetRefs": [reference]}).targets == ("Service/web",)
    assert read({"targetRef": reference}).targets == ("Service/web",)


WRONG = {
    "CUSTOM": ({"action": "CUSTOM"}, "spec.action: expected ALLOW or DENY (CUSTOM and AUDIT need an L7 proxy"),
    "AUDIT": ({"action": "AUDIT"}, "spec.action: expected ALLOW or DENY (CUSTOM and AUDIT need an L7 proxy"),
    "another action": ({"action": "deny"}, "spec.action: expected ALLOW or DENY, found 'deny'"),
    "provider": ({"provider": {"name": "x"}}, "spec.provider: expected no provider"),
    "a field": ({"provision": []}, "spec.provision: expected no such field (known: selector, targetRef"),
    "a misspelt field": ({"rule": []}, "spec.rule: expected no such field (did you mean rules?), found 'rule'"),
    "a field of a rule": ({"rules": [{"form": []}]}, "spec.rules[0].form: expected no such field"),
    "a field of a source": (
        {"rules": [{"from": [{"source": {"principal": ["x"]}}]}]},
        "spec.rules[0].from[0].source.principal: expected no such field",
    ),
    "a field beside source": (
        {"rules": [{"from": [{"source": {"namespaces": ["x"]}, "extra": 1}]}]},
        "spec.rules[0].from[0].extra: expected no such field",
    ),
    "a field of a condition": (
        {"rules": [{"when": [{"key": "source.ip", "value": ["x"]}]}]},
        "spec.rules[0].when[0].value: expected no such field",
    ),
    "no rule": ({"rules": [None]}, "spec.rules[0]: expected a mapping ({} for a rule that matches everything)"),
    "rules that are no list": ({"rules": {}}, "spec.rules: expected a list, found a mapping"),
    "an empty from": ({"rules": [{"from": []}]}, "spec.rules[0].from: expected at least one element, or no such field"),
    "an empty to": ({"rules": [{"to": []}]}, "spec.rules[0].to: expected at least one element, or no such field"),
    "an empty source": ({"rules": [{"from": [{"source": {}}]}]}, "spec.rules[0].from[0].source: expected at least one"),
    "no source": ({"rules": [{"from": [{}]}]}, "spec.rules[0].from[0].source: expected a mapping with at least one"),
    "no operation": ({"rules": [{"to": [None]}]}, "spec.rules[0].to[0]: expected a mapping with operation"),
    "an operation with empty lists": (
        {"rules": [{"to": [{"operation": {"ports": [], "hosts": ["web"]}}]}]},
        "spec.rules[0].to[0].operation.ports: expected at least one value, or no such field, found none",
    ),
    "a port as a number": (
        {"rules": [{"to": [{"operation": {"ports": [80]}}]}]},
        'spec.rules[0].to[0].operation.ports[0]: expected a port number from 1 to 65535, as text ("8080"), found 80',
    ),
    "a port out of range": (
        {"rules": [{"to": [{"operation": {"notPorts": ["80", "65536"]}}]}]},
        "spec.rules[0].to[0].operation.notPorts[1]: expected a port number",
    ),
    "a block": (
        {"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/40"]}}]}]},
        "spec.rules[0].from[0].source.ipBlocks[0]: expected an IP address or CIDR block, found '10.0.0.0/40'",
    ),
    "a principal with a scheme, which could never match": (
        {"rules": [{"from": [{"source": {"notPrincipals": ["spiffe://x/ns/a/sa/b"]}}]}]},
        "spec.rules[0].from[0].source.notPrincipals[0]: expected <trust domain>/ns/<namespace>/sa/<service account>",
    ),
    **{
        f"a wildcard that could never match, {text}": (
            {"rules": [{"from": [{"source": {"principals": ["*", text]}}]}]},
            "spec.rules[0].from[0].source.principals[1]: expected exact text, prefix*, *suffix or *",
        )
        for text in ("a*b", "*a*", "**", "a**")
    },
    "a namespace's": (
        {"rules": [{"when": [{"key": "source.namespace", "notValues": ["a*b"]}]}]},
        "spec.rules[0].when[0].notValues[0]: expected exact text, prefix*, *suffix or *, found 'a*b'",
    ),
    **{
        f"{clause} without anything in it": (
            {"rules": [{clause: None}]},
            f"spec.rules[0].{clause}: expected at least one element, or no such field, found none",
        )
        for clause in ("from", "to", "when")
    },
    "an empty text": (
        {"rules": [{"from": [{"source": {"namespaces": [""]}}]}]},
        "spec.rules[0].from[0].source.namespaces[0]: expected text that is not empty, found ''",
    ),
    "a value that is no text": (
        {"rules": [{"from": [{"source": {"namespaces": [1]}}]}]},
        "spec.rules[0].from[0].source.namespaces[0]: expected text, found 1",
    ),
    "a service account with a wildcard": (
        {"rules": [{"from": [{"source": {"serviceAccounts": ["a/*"]}}]}]},
        "spec.rules[0].from[0].source.serviceAccounts[0]: expected <service account> or",
    ),
    "service accounts beside namespaces": (
        {"rules": [{"from": [{"source": {"serviceAccounts": ["a"], "namespaces": ["b"]}}]}]},
        "spec.rules[0].from[0].source.serviceAccounts: expected no principals or namespaces beside it",
    ),
    "an unknown condition": (
        {"rules": [{"when": [{"key": "source.port", "values": ["1"]}]}]},
        "spec.rules[0].when[0].key: expected source.ip or",
    ),
    "a condition without values": (
        {"rules": [{"when": [{"key": "source.ip"}]}]},
        "spec.rules[0].when[0]: expected values or notValues, with at least one value, found none",
    ),
    "a condition without a key": (
        {"rules": [{"when": [{"values": ["x"]}]}]},
        "spec.rules[0].when[0].key: expected a condition's key, such as source.ip, found nothing",
    ),
    "a wildcard in a selector": (
        {"selector": {"matchLabels": {"app": "w*"}}},
        "spec.selector.matchLabels.app: expected a label without wildcards",
    ),
    "match expressions": (
        {"selector": {"matchExpressions": []}},
        "spec.selector.matchExpressions: expected no such field",
    ),
    "selector and target": (
        {"selector": {"matchLabels": {"a": "b"}}, "targetRef": {"kind": "Service", "name": "x"}},
        "spec.selector: expected either selector or targetRefs, found both",
    ),
}


@pytest.mark.parametrize(("spec", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_policy_is_named_by_path(spec: dict[str, Any], text: str) -> None:
    (problem,) = problems(spec)
    assert problem.startswith(text)


def test_an_unknown_field_beside_spec_is_an_error() -> None:
    found = manifests.translate(
        {"apiVersion": "ambient.dev/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}, "rules": []}
    )
    assert [problem.path for problem in found.problems] == ["rules"]


def authentication(spec: Any, **more: Any) -> Any:
    return read(spec, kind="PeerAuthentication", **more)


def test_a_peer_authentication_is_read_whole() -> None:
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "DISABLE"}, 9090: {"mode": "PERMISSIVE"}, "7": {"mode": "UNSET"}},
    }
    assert authentication(spec, creationTimestamp="2026-01-01T00:00:00Z") == mesh.PeerAuthentication(
        namespace="shop",
        name="p",
        selector={"app": "web"},
        mode=MtlsMode.STRICT,
        port_modes={8080: MtlsMode.DISABLE, 9090: MtlsMode.PERMISSIVE},
        created="2026-01-01T00:00:00Z",
    )


@pytest.mark.parametrize("spec", [None, {}, {"mtls": None}, {"mtls": {}}, {"mtls": {"mode": "UNSET"}}])
def test_an_unset_mode_is_none(spec: Any) -> None:
    assert authentication(spec).mode is None


SELECTOR = {"selector": {"matchLabels": {"a": "b"}}}
WRONG_AUTHENTICATION = {
    "mode": ({"mtls": {"mode": "strict"}}, "spec.mtls.mode: expected DISABLE or PERMISSIVE or STRICT or UNSET"),
    "mode without mtls": ({"mode": "STRICT"}, "spec.mode: expected no such field"),
    "ports without a selector": (
        {"portLevelMtls": {"80": {"mode": "STRICT"}}},
        "spec.portLevelMtls: expected a selector beside it",
    ),
    "no ports": (SELECTOR | {"portLevelMtls": {}}, "spec.portLevelMtls: expected at least one port"),
    "a port's name": (
        SELECTOR | {"portLevelMtls": {"http": {"mode": "STRICT"}}},
        "spec.portLevelMtls.http: expected a port number from 1 to 65535 as the key",
    ),
    "port 0": (
        SELECTOR | {"portLevelMtls": {0: {"mode": "STRICT"}}},
        'spec.portLevelMtls["0"]: expected a port number from 1 to 65535 as the key',
    ),
    "a port's mode": (
        SELECTOR | {"portLevelMtls": {"80": {"mode": "ON"}}},
        'spec.portLevelMtls["80"].mode: expected DISABLE or',
    ),
}


@pytest.mark.parametrize(("spec", "text"), WRONG_AUTHENTICATION.values(), ids=WRONG_AUTHENTICATION.keys())
def test_what_is_wrong_with_a_peer_authentication_is_named_by_path(spec: dict[str, Any], text: str) -> None:
    (problem,) = problems(spec, kind="PeerAuthentication")
    assert problem.startswith(text)
