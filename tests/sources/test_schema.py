"""The schemas of `daemonset.yaml` and the readers agree: what the API server takes is read, and what is read it takes.

Two things only the reader can tell, and the policy's status says them: whether an ipBlock is an address, and what a
condition's values must be for its key. Sizes only the schema bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.sources import manifests
from sources import openapi

SCHEMAS = openapi.schemas()
READERS_OWN = re.compile(r".*([iI]pBlocks\[\d+\]|\.when\[\d+\]\.(v|notV)alues\[\d+\])")

LABELS = st.dictionaries(
    st.sampled_from(["app", "a/b", "*", "a*", ""]), st.sampled_from(["x", "", "*", "x*"]), max_size=2
)
SELECTOR = st.fixed_dictionaries({}, optional={"matchLabels": LABELS})
PORTS = st.sampled_from(["80", "080", "0", "65535", "65536", "http", "", "99999", "-1", "8 0", "80\n", "٣"])
NAMES = st.one_of(
    st.sampled_from(["cluster.local/ns/a/sa/b", "spiffe://x", "*", "**", "a*", "*a", "a*b", "", ":", "a:", "a:/b"]),
    st.sampled_from(["a/b", "a/b/c", "/a", "a/", "a:://b", "a:/://", "*:/", ":/*", "a\n", "a*\n"]),
    st.text(alphabet="a:/*", max_size=6),
)
BLOCKS = st.sampled_from(
    [
        "10.0.0.1",
        "10.0.0.0/8",
        "10.0.0.1/8",
        "10.0.0.0/08",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/33",
        "1.2.3",
        "fd00::/8",
        "fe80::1%eth0",
        "::/0",
        "x",
        "",
        " ::1",
    ]
)
WORDS = st.sampled_from(["GET", "/x", ""])
KEYS = st.sampled_from(
    [
        "source.ip",
        "source.namespace",
        "source.principal",
        "source",
        "destination.ip",
        "destination.port",
        "remote.ip",
        "remote.ipx",
        "request.",
        "request.headers[x]",
        "connection.sni",
        "experimental.envoy.filters.x",
        "",
    ]
)


def some(values: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=most)


def a_mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields, and now and then one that nobody knows."""
    return st.fixed_dictionaries({}, optional=fields).flatmap(
        lambda found: st.sampled_from([found] * 9 + [found | {"unknown": 1}])
    )


def both(**fields: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return fields | {"not" + name[0].upper() + name[1:]: values for name, values in fields.items()}


SOURCE = a_mapping(
    **both(
        principals=some(NAMES),
        namespaces=some(NAMES),
        serviceAccounts=some(NAMES),
        ipBlocks=some(BLOCKS),
        remoteIpBlocks=some(BLOCKS),
        requestPrincipals=some(NAMES),
    )
)
OPERATION = a_mapping(**both(ports=some(PORTS), hosts=some(WORDS), methods=some(WORDS), paths=some(WORDS)))
CONDITION = a_mapping(key=KEYS, values=some(st.one_of(BLOCKS, NAMES)), notValues=some(NAMES))
REFERENCE = a_mapping(
    group=WORDS, kind=st.sampled_from(["Gateway", ""]), name=st.sampled_from(["a", ""]), namespace=WORDS
)
RULE = a_mapping(
    **{"from": some(a_mapping(source=SOURCE)), "to": some(a_mapping(operation=OPERATION)), "when": some(CONDITION)}
)
MODE = a_mapping(mode=st.sampled_from(["STRICT", "PERMISSIVE", "UNSET", "DISABLE", "strict", ""]))
ALLOWED = a_mapping(cidrs=some(BLOCKS), ports=some(st.sampled_from([1, 0, 65535, 65536, True, "80"])))
OUTBOUND = a_mapping(
    mtls=st.sampled_from(["Required", "Optional", "STRICT"]),
    unknownDestinations=st.sampled_from(["Allow", "Refuse", ""]),
    allowed=some(ALLOWED),
)
SPECS: Mapping[str, st.SearchStrategy[dict[str, Any]]] = {
    "AuthorizationPolicy": a_mapping(
        selector=SELECTOR,
        targetRef=REFERENCE,
        targetRefs=some(REFERENCE),
        action=st.sampled_from(["ALLOW", "DENY", "AUDIT", "CUSTOM", ""]),
        rules=some(RULE),
    ),
    "PeerAuthentication": a_mapping(
        selector=SELECTOR, mtls=MODE, portLevelMtls=st.dictionaries(PORTS, MODE, max_size=2)
    ),
    "TrafficPolicy": a_mapping(selector=SELECTOR, outbound=OUTBOUND),
}


def compared(kind: str, spec: Any) -> None:
    refused = list(openapi.refusals(SCHEMAS[kind], spec))
    found = manifests.translate(
        {"apiVersion": "ambient.dev/v1alpha1", "kind": kind, "metadata": {"name": "p", "namespace": "n"}, "spec": spec}
    )
    wrong = [f"{problem.path}: expected {problem.expected}" for problem in found.problems]
    beyond = [row for row in wrong if not READERS_OWN.match(row)]
    if refused or beyond:
        assert refused, f"the API server takes what no reader does: {beyond}"
        assert wrong, f"the API server refuses what a reader takes: {refused}"


@pytest.mark.parametrize("kind", SPECS)
def test_api_server_and_reader_agree(kind: str) -> None:
    @settings(max_examples=150)
    @given(SPECS[kind])
    def agree(spec: dict[str, Any]) -> None:
        compared(kind, spec)

    agree()


@pytest.mark.parametrize(
    ("clause", "inside", "fields", "values"),
    [
        ("from", "source", ["principals", "namespaces", "serviceAccounts", "requestPrincipals"], NAMES),
        ("from", "source", ["ipBlocks", "notRemoteIpBlocks"], BLOCKS),
        ("to", "operation", ["ports", "notPorts"], PORTS),
        ("to", "operation", ["hosts", "notPaths"], WORDS),
    ],
    ids=["names", "blocks", "ports", "words"],
)
def test_they_agree_about_each_value(
    clause: str, inside: str, fields: list[str], values: st.SearchStrategy[Any]
) -> None:
    """In a policy that is well but for it, perhaps."""

    @settings(max_examples=150)
    @given(st.sampled_from(fields), values)
    def agree(field: str, value: Any) -> None:
        compared("AuthorizationPolicy", {"rules": [{clause: [{inside: {field: [value]}}]}]})

    agree()


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("PeerAuthentication", {"selector": {"matchLabels": {"*": "a"}}}, "spec.selector.matchLabels"),
        ("PeerAuthentication", {"selector": {"matchLabels": {"a": "*"}}}, "spec.selector.matchLabels.a"),
        ("AuthorizationPolicy", {"rules": [{"from": [{"source": {"principals": ["a:://b"]}}]}]}, "spec.rules[0].from"),
        ("AuthorizationPolicy", {"rules": [{"from": [{"source": {"principals": []}}]}]}, "spec.rules[0].from"),
        ("AuthorizationPolicy", {"rules": [{"when": [{"key": "remote.ipx", "values": ["a"]}]}]}, "spec.rules[0].when"),
        ("TrafficPolicy", {"outbound": {}}, "spec.outbound"),
    ],
)
def test_both_refuse(kind: str, spec: Any, path: str) -> None:
    assert any(row.startswith(path) for row in openapi.refusals(SCHEMAS[kind], spec))
    compared(kind, spec)


@pytest.mark.parametrize("file", sorted((openapi.FILE.parent / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_the_api_server_takes_every_policy_of_the_examples(file: Any) -> None:
    for body in yaml.safe_load_all(file.read_text()):
        if body and body["apiVersion"] == "ambient.dev/v1alpha1":
            assert list(openapi.refusals(SCHEMAS[body["kind"]], body["spec"])) == []


@pytest.mark.parametrize("block", ["1.2.3", "01.2.3.4", "256.0.0.1", "10.0.0.0/33", "10.0.0.0/08", "::/129", "x", ""])
def test_a_mistyped_block_is_refused_before_it_denies_everything(block: str) -> None:
    spec = {"rules": [{"from": [{"source": {"ipBlocks": [block]}}]}]}
    assert list(openapi.refusals(SCHEMAS["AuthorizationPolicy"], spec))
