"""Reading manifests, and refusing what the lab cannot play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.lab import admission, manifests
from ambient.lab.errors import Refused
from tests.lab.builders import a_namespace, a_node, a_pod, a_service, applied, documents


def test_a_directory_is_read_in_name_order_and_lists_are_opened(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: Node\nmetadata: {name: n}\n---\n---\nkind: Node\nmetadata: {name: m}\n")
    (tmp_path / "a.json").write_text('{"kind": "List", "items": [{"kind": "Namespace", "metadata": {"name": "x"}}]}')
    (tmp_path / "ignored.txt").write_text("]")
    found = manifests.read(tmp_path)
    assert [document.body["metadata"]["name"] for document in found] == ["x", "n", "m"]
    assert [Path(document.where).name for document in found] == [
        "a.json document 1",
        "b.yaml document 1",
        "b.yaml document 3",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("a: [", "not YAML", id="broken"),
        pytest.param("a: 1\na: 2\n", "twice", id="the same key twice"),
        pytest.param("[1]\n", "expected a manifest", id="no mapping"),
    ],
)
def test_text_that_holds_no_manifest_is_refused(text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        manifests.parse(text)


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        pytest.param({"kind": "Deployment", "metadata": {"name": "x"}}, "no such controller", id="kind"),
        pytest.param({"kind": "Pod"}, "metadata: expected", id="no metadata"),
        pytest.param({"kind": "Node", "metadata": {"name": "A_b"}}, "metadata.name", id="bad name"),
        pytest.param(a_pod(container={"command": "sleep 1"}), "[0].command: expected a list", id="command text"),
        pytest.param(a_pod(container={"command": None}), "host programs, not images", id="no command"),
        pytest.param(a_pod(container={"args": [8080]}), "quote numbers", id="number in args"),
        pytest.param(a_pod(container={"livenessProbe": {}}), "readinessProbe only", id="liveness"),
        pytest.param(a_pod(container={"readinessProbe": {}}), "one of tcpSocket", id="empty probe"),
        pytest.param(
            a_pod(container={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {}}}]}), "fieldRef", id="env"
        ),
        pytest.param(a_pod(initContainers=[]), "initContainers", id="init"),
        pytest.param(a_pod(restartPolicy="Sometimes"), "restartPolicy", id="restart policy"),
        pytest.param(a_service(type="NodePort"), "spec.type", id="service type"),
        pytest.param(a_service(ipFamilies=["IPv5"]), "ipFamilies", id="family"),
    ],
)
def test_what_the_lab_cannot_play_is_refused(manifest: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as caught:
        manifests.check(documents(manifest)[0])
    assert says in str(caught.value)
    assert "test document 1" in str(caught.value)


def test_the_meshs_own_parser_has_its_say_with_the_place() -> None:
    bad = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"action": "PERHAPS"},
    }
    objects = applied(a_node(), a_namespace(), bad)
    with pytest.raises(Refused) as caught:
        admission.check(objects, documents(a_node(), a_namespace(), bad))
    assert "test document 3: AuthorizationPolicy shop/p: spec.action" in str(caught.value)
