"""Our plugin comes behind the others, and not a byte of theirs changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.agent.cni import conflist
from ambient.agent.cni.conflist import OWN, Unusable

OURS = {"type": "ambient-cni", "runDir": "/run/ambient"}
CALICO = """{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "mtu": 0, "list": [1, 2.50, 1e3], "text": "\\u00e4 ] }"},
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {"portMappings": true}
    }
  ],
  "disableCheck": true
}
"""


def test_a_list_gets_one_plugin_more_and_keeps_its_text() -> None:
    text = conflist.chained("10-calico.conflist", CALICO, OURS)
    ours = ", " + json.dumps(OURS)
    assert text.replace(ours, "", 1) == CALICO
    body = json.loads(text)
    assert body["plugins"] == [*json.loads(CALICO)["plugins"], OURS]
    assert body | {"plugins": ...} == json.loads(CALICO) | {"plugins": ...}


@pytest.mark.parametrize("name", ["10-bridge.conf", "10-bridge.json"])
def test_a_single_plugin_becomes_a_list(name: str) -> None:
    single = '{"cniVersion": "0.4.0", "name": "mynet", "type": "bridge", "mtu": 1.50}\n'
    text = conflist.chained(name, single, OURS)
    assert single.strip() in text
    assert json.loads(text) == {"cniVersion": "0.4.0", "name": "mynet", "plugins": [json.loads(single), OURS]}


def test_who_has_our_plugin_already_gets_no_second() -> None:
    once = conflist.chained("10-calico.conflist", CALICO, OURS)
    assert conflist.chained("10-copied.conflist", once, OURS) == once


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("10-a.conflist", "{", "is no JSON"),
        ("10-a.conflist", "", "is no JSON"),
        ("10-a.conflist", "[]", "no JSON object"),
        ("10-a.conflist", '{"name":"n","cniVersion":"1.0.0"}', "has no plugins"),
        ("10-a.conflist", '{"name":"n","cniVersion":"1.0.0","plugins":[]}', "has no plugins"),
        ("10-a.conflist", '{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}', "has no name"),
        ("10-a.conflist", '{"name":"n","cniVersion":"1.0.0","plugins":[{"kind":"x"}]}', "without a type"),
        ("10-a.conflist", '{"name":"n","cniVersion":"1.0.0","plugins":["x"]}', "without a type"),
        ("10-a.conf", '{"name":"n","cniVersion":"1.0.0"}', "without a type"),
        ("10-a.conflist", '{"name":"n","plugins":[{"type":"x"}]}', "CNI version unknown"),
        ("10-a.conflist", '{"name":"n","cniVersion":"0.2.0","plugins":[{"type":"x"}]}', "CNI version 0.2.0"),
        ("0-ambiance.conflist", CALICO, "sorts before 0-ambient.conflist"),
    ],
)
def test_what_cannot_be_chained_is_left_alone_and_named(name: str, text: str, why: str) -> None:
    with pytest.raises(Unusable, match=f"^{name} .*{why}"):
        conflist.chained(name, text, OURS)


def test_runtimes_take_the_first_by_name_and_ours_sorts_before_what_nodes_have() -> None:
    there = ["10-b.conflist", "00-multus.conf", "05-cilium.conflist", OWN, "README", "10-b.conflist.bak", "0a.json"]
    assert conflist.primary(there) == ["00-multus.conf", "05-cilium.conflist", "0a.json", "10-b.conflist"]
    assert sorted(there)[0] == OWN


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
FOREIGN = st.dictionaries(st.text().filter(lambda key: key not in ("plugins", "name", "cniVersion")), TREES, max_size=4)
PLUGINS = st.lists(FOREIGN.map(lambda plugin: {**plugin, "type": "x"}), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(before=FOREIGN, plugins=PLUGINS, after=FOREIGN, indent=st.none() | st.integers(0, 3), plain=st.booleans())
def test_any_list_is_chained_without_a_change(
    before: dict[str, Any], plugins: list[Any], after: dict[str, Any], indent: int | None, plain: bool
) -> None:
    body = {**before, "name": "n", "cniVersion": "1.0.0", "plugins": plugins, **after}
    text = json.dumps(body, indent=indent, ensure_ascii=plain)
    chained = conflist.chained("10-x.conflist", text, OURS)
    assert json.loads(chained) == body | {"plugins": [*plugins, OURS]}
    assert chained.replace(", " + json.dumps(OURS), "") == text
