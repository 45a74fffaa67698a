"""What a change is said to have done: an object at a time, in the words of kubectl."""

from __future__ import annotations

from typing import Any

from ambient.lab import admission, changes, cluster
from ambient.lab.cluster import Objects, target
from tests.lab.builders import a_namespace, a_node, a_pod, a_service, applied, documents, with_status

POD, SHOP, DEFAULT = (target(text) for text in ("pod/shop/web", "ns/shop", "ns/default"))
BEFORE = with_status(applied(a_node(), a_namespace(), a_pod(), a_service()), "web", "10.0.0.2")


def told(*manifests: dict[str, Any]) -> list[str]:
    uid = iter(map(str, range(9)))
    judged = admission.judge(BEFORE, documents(*manifests), new_uid=lambda: next(uid))
    admission.refuse(judged.errors)
    return changes.applied(BEFORE, judged.objects, judged.given)


def test_an_apply_creates_configures_or_leaves_alone() -> None:
    assert told(a_pod("other"), a_pod()) == ["pod/shop/other created", "pod/shop/web unchanged"]
    assert told(a_service(port=81)) == ["service/shop/web configured"]
    assert told(a_node()) == ["node/node1 unchanged"]


def test_what_every_cluster_has_is_unchanged_though_it_had_no_uid() -> None:
    assert told(a_namespace("default")) == ["namespace/default unchanged"]


def test_a_label_is_set_or_was_there() -> None:
    after = cluster.labelled(BEFORE, SHOP, ["a=b"])
    assert changes.labelled(BEFORE, after, SHOP) == ["namespace/shop labeled"]
    assert changes.labelled(after, cluster.labelled(after, SHOP, ["a=b"]), SHOP) == ["namespace/shop unchanged"]
    assert changes.labelled(after, cluster.labelled(after, SHOP, ["a-"]), SHOP) == ["namespace/shop labeled"]
    assert changes.labelled(BEFORE, cluster.labelled(BEFORE, POD, ["none-"]), POD) == ["pod/shop/web unchanged"]


def test_what_goes_along_is_told_too() -> None:
    left: Objects = {key: body for key, body in BEFORE.items() if "shop" not in (key.name, key.namespace)}
    assert changes.deleted(BEFORE, left) == [
        "namespace/shop deleted",
        "pod/shop/web deleted",
        "service/shop/web deleted",
    ]
    assert changes.deleted(BEFORE, BEFORE) == []
