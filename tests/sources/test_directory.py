"""A directory of manifests: loading, naming its state, and what bad files get."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.model.world import diff
from ambient.sources import directory
from ambient.sources.directory import Directory, SourceError

from .written import CONFIG, POLICY, SERVICE, namespace, node, pod


def test_a_directory_becomes_a_world(place: Path) -> None:
    world = directory.load(place, CONFIG)
    web = world.workloads["shop/web"]
    assert (web.enrolled, web.locality.zone) == (True, "a")
    assert [endpoint.workload for endpoint in world.endpoints["shop/web"]] == ["shop/web"]
    assert world.revision == directory.revision(place)
    assert world.mesh == CONFIG


def test_directories_below_json_and_lists_count_and_hidden_or_other_files_do_not(place: Path) -> None:
    (place / "more").mkdir()
    (place / "more" / "db.json").write_text(
        '{"apiVersion": "v1", "kind": "List", "items":'
        ' [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}}]}'
    )
    (place / ".git").mkdir()
    for name in (".git/x.yaml", ".web.yaml", "web.yaml~", "README.md"):
        (place / name).write_text("{")
    assert set(directory.load(place, CONFIG).workloads) == {"shop/web", "default/d"}


def test_an_empty_directory_is_an_empty_world(tmp_path: Path) -> None:
    assert not directory.load(tmp_path, CONFIG).workloads


@pytest.mark.parametrize("function", [lambda path: directory.load(path, CONFIG), directory.revision])
def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path, function: Callable[[Path], Any]) -> None:
    with pytest.raises(
        SourceError, match="gone: expected a readable file or directory, found No such file or directory"
    ):
        function(tmp_path / "gone")


def test_the_revision_names_the_names_and_contents_and_nothing_else(place: Path) -> None:
    first = directory.revision(place)
    os.utime(place / "web.yaml", (1, 1))
    (place / "notes.txt").write_text("x")
    assert directory.revision(place) == first
    (place / "web.yaml").rename(place / "web2.yaml")
    second = directory.revision(place)
    (place / "web2.yaml").write_text((place / "web2.yaml").read_text() + "\n")
    assert len({first, second, directory.revision(place)}) == 3


@pytest.mark.parametrize(
    ("more", "namespace_labels", "labels", "enrolled"),
    [
        ("", "{ambient.dev/mode: enabled}", "{}", True),
        ("", "{istio.io/dataplane-mode: ambient}", "{}", True),
        ("", "{}", "{}", False),
        ("", "{}", "{ambient.dev/mode: enabled}", True),
        ("", "{ambient.dev/mode: enabled}", "{ambient.dev/mode: disabled}", False),
        ("", "{ambient.dev/mode: enabled}", "{istio.io/dataplane-mode: none}", False),
        (", hostNetwork: true", "{ambient.dev/mode: enabled}", "{ambient.dev/mode: enabled}", False),
    ],
)
def test_a_pod_is_enrolled_by_its_label_else_by_its_namespaces(
    tmp_path: Path, more: str, namespace_labels: str, labels: str, enrolled: bool
) -> None:
    texts = [namespace(labels=namespace_labels), node(), pod("web", "10.1.0.1", labels=labels, more=more)]
    (tmp_path / "x.yaml").write_text("---\n".join(texts))
    assert directory.load(tmp_path, CONFIG).workloads["shop/web"].enrolled is enrolled


def test_a_pod_with_istios_sidecar_is_not_enrolled(place: Path) -> None:
    text = pod("web", "10.1.0.1").replace("uid:", "annotations: {sidecar.istio.io/status: x}, uid:")
    (place / "web.yaml").write_text(text)
    assert not directory.load(place, CONFIG).workloads["shop/web"].enrolled


# --- bad files


def errors(place: Path) -> tuple[str, ...]:
    with pytest.raises(SourceError) as caught:
        directory.load(place, CONFIG)
    assert caught.value.revision == directory.revision(place)
    return caught.value.errors


def test_every_error_is_told_with_file_document_object_and_path_sorted(place: Path) -> None:
    (place / "b.yaml").write_text(namespace("x") + "---\n" + POLICY.replace("DENY", "CUSTOM"))
    (place / "a.yaml").write_text("kind: Pod\n")
    assert errors(place) == (
        "a.yaml: document 1 (Pod): apiVersion: expected an API version, found nothing",
        "a.yaml: document 1 (Pod): metadata.name: expected a name, found nothing",
        "b.yaml: document 2 (AuthorizationPolicy shop/web): spec.action: expected ALLOW or DENY (CUSTOM and AUDIT need"
        " an L7 proxy, the mesh does not enforce them), found 'CUSTOM'",
    )


BROKEN = {
    "no YAML": ("a: [", "bad.yaml: document 1: line 2, column 1: expected YAML, found"),
    "tabs": ("a:\n\t- b", "bad.yaml: document 1: line 2, column 1: expected YAML, found"),
    "a key twice": (
        namespace("x") + "kind: Pod\n",
        "bad.yaml: document 1: line 4, column 1: expected YAML, found the key 'kind' twice",
    ),
    "code": ("!!python/object/apply:os.system [x]", "bad.yaml: document 1: line 1, column 1: expected YAML, found"),
    "no text": (b"\x80\x81", "bad.yaml: document 1: expected YAML, found"),
    "very deep": (
        "[ " * 100_000,  # libyaml reads some 1,000 characters ahead, and has a limit of its own there
        "bad.yaml: expected at most 100 levels of nesting, found more, at line 1",
    ),
    "a list": ("- a\n", "bad.yaml: document 1: expected a Kubernetes object (a mapping with apiVersion"),
}


@pytest.mark.parametrize(("content", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_manifest_is_an_error_with_its_place(place: Path, content: str | bytes, text: str) -> None:
    (place / "bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (error,) = errors(place)
    assert error.startswith(text)


def test_documents_before_the_broken_one_are_still_checked(place: Path) -> None:
    (place / "bad.yaml").write_text("kind: X\napiVersion: ambient.dev/v1\nmetadata: {name: x}\n---\na: [")
    assert [error[:22] for error in errors(place)] == ["bad.yaml: document 1 (", "bad.yaml: document 2: "]


def test_an_unquoted_date_is_text(place: Path) -> None:
    dated = pod("web", "10.1.0.1").replace("uid:", "creationTimestamp: 2026-01-01T00:00:00Z, uid:")
    (place / "web.yaml").write_text(dated)
    assert directory.load(place, CONFIG).workloads


def test_one_object_in_two_files_or_documents_is_an_error(place: Path) -> None:
    (place / "copy.yaml").write_text(pod("web", "10.1.0.1"))
    (place / "twice.yaml").write_text(
        POLICY + "---\n" + POLICY.replace("security.istio.io/v1", "security.istio.io/v1beta1")
    )
    assert errors(place) == (
        "copy.yaml: document 1 (Pod shop/web): expected one definition of this object,"
        " found it in web.yaml document 1 too",
        "twice.yaml: document 2 (AuthorizationPolicy shop/web): expected one definition of this object,"
        " found it in document 1 too",
    )


def test_a_policy_of_the_same_name_in_the_other_group_is_another_policy(place: Path) -> None:
    (place / "ours.yaml").write_text(POLICY.replace("security.istio.io/v1", "ambient.dev/v1alpha1"))
    (place / "istios.yaml").write_text(POLICY)
    assert directory.load(place, CONFIG).policies.keys() == {"shop/web", "shop/web (security.istio.io)"}


def test_contradictions_between_objects_are_errors_with_every_place(place: Path) -> None:
    (place / "twin.yaml").write_text(namespace("x") + "---\n" + pod("twin", "10.1.0.1"))
    assert errors(place) == (
        "twin.yaml: document 2 (Pod shop/twin): status.podIPs: expected an address of its own,"
        " found 10.1.0.1, which Pod shop/web has too",
        "web.yaml: document 1 (Pod shop/web): status.podIPs: expected an address of its own,"
        " found 10.1.0.1, which Pod shop/twin has too",
    )


def test_a_node_that_goes_is_missed_where_its_pods_are_written(place: Path) -> None:
    source = Directory.at(place, CONFIG)
    source.refresh()
    (place / "shop.yaml").write_text(namespace())
    with pytest.raises(SourceError) as caught:
        source.refresh([place / "shop.yaml"])
    assert caught.value.errors == (
        "web.yaml: document 1 (Pod shop/web): spec.nodeName: expected a Node that exists, found 'n1'",
    )


def test_what_is_wrong_in_a_list_is_found_there(place: Path) -> None:
    (place / "list.json").write_text(
        '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Node"}, 7]}'
    )
    assert errors(place) == (
        "list.json: document 1: items[1]: expected a Kubernetes object (a mapping with apiVersion, kind and metadata),"
        " found 7",
        "list.json: document 1 (Node): items[0].metadata.name: expected a name, found nothing",
    )


def test_a_file_that_cannot_be_read_is_an_error_and_a_directory_is_no_file(place: Path) -> None:
    (place / "dir.yaml").mkdir()
    assert directory.load(place, CONFIG).workloads
    (place / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(SourceError, match=r"readable .*, found Too many levels of symbolic links: .*/loop.yaml"):
        directory.load(place, CONFIG)


# --- changes, one refresh at a time


def test_only_what_changed_is_read_again(place: Path) -> None:
    source = Directory.at(place, CONFIG)
    first = source.refresh()
    (place / "web.yaml").write_text(pod("web", "10.1.0.2"))
    (place / "shop.yaml").write_text("{")  # not said to have changed, so not looked at
    second = source.refresh([place / "web.yaml"])
    assert diff(first, second).touched() == {"wl:shop/web", "svc:shop/web", "ip:10.1.0.1", "ip:10.1.0.2"}
    with pytest.raises(SourceError):
        source.refresh()


def test_the_last_good_world_is_the_one_that_the_next_is_made_from(place: Path) -> None:
    source = Directory.at(place, CONFIG)
    first = source.refresh()
    (place / "web.yaml").write_text("{")
    (place / "more.yaml").write_text(pod("db", "10.1.0.9"))
    for _ in range(2):
        with pytest.raises(SourceError):
            source.refresh()
    (place / "web.yaml").write_text(pod("web", "10.1.0.1"))
    second = source.refresh()
    assert diff(first, second).workloads == {"shop/db"}
    assert second == directory.load(place, CONFIG)


def test_an_object_may_move_from_file_to_file(place: Path) -> None:
    source = Directory.at(place, CONFIG)
    first = source.refresh()
    (place / "web.yaml").rename(place / "moved.yaml")
    second = source.refresh([place / "web.yaml", place / "moved.yaml"])
    assert not diff(first, second)
    assert second.revision == directory.revision(place) != first.revision


def test_a_namespaces_label_and_a_nodes_zone_change_their_pods(place: Path) -> None:
    source = Directory.at(place, CONFIG)
    first = source.refresh()
    (place / "shop.yaml").write_text("---\n".join([namespace(labels="{}"), node(zone="b"), SERVICE]))
    second = source.refresh()
    web = second.workloads["shop/web"]
    assert (web.enrolled, web.locality.zone) == (False, "b")
    assert diff(first, second).touched() == {"ns:shop", "wl:shop/web", "svc:shop/web"}
    assert second == directory.load(place, CONFIG)


def test_notes_tell_what_is_of_no_concern(place: Path) -> None:
    (place / "job.yaml").write_text("apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\n")
    source = Directory.at(place, CONFIG)
    source.refresh()
    assert source.notes == ("job.yaml: document 1 (Job default/x): batch/v1 Job is of no concern to the mesh",)
