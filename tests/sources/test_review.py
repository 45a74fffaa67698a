"""Manifests judged where they lie."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from ambient.model.mesh import MeshConfig
from ambient.sources import files
from ambient.sources.review import Review, review

from .written import namespace, node, pod


def reviewed(*paths: Path) -> Review:
    return review(*files.documents(paths), mesh=MeshConfig())


def texts(found: Review) -> list[str]:
    return [str(error) for error in found.errors]


def test_files_and_directories_become_one_world(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "web.yaml").write_text(pod("web", "10.1.0.1"))
    (tmp_path / "one.txt").write_text(namespace() + "---\n" + node())
    found = reviewed(tmp_path / "more", tmp_path / "one.txt")
    assert found.errors == ()
    assert found.world.workloads["shop/web"].enrolled


def test_files_are_called_as_the_user_called_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "web.yaml").write_text(pod("web", "10.1.0.1"))
    assert texts(reviewed(Path("more"))) == [
        "more/web.yaml: document 1 (Pod shop/web): spec.nodeName: expected a Node that exists, found 'n1'"
    ]


def test_an_object_in_two_of_the_files_is_an_error(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(node())
    assert texts(reviewed(tmp_path / "a.yaml", tmp_path / "b.yaml")) == [
        f"{tmp_path}/b.yaml: document 1 (Node n1): expected one definition of this object,"
        f" found it in {tmp_path}/a.yaml document 1 too"
    ]


def test_a_directory_without_manifests_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert texts(reviewed(tmp_path)) == [
        f"{tmp_path}: expected a *.yaml, *.yml or *.json file in this directory, found none"
    ]


def test_what_is_not_there_is_an_error_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("kind: Pod\napiVersion: v1\n---\na: [")
    assert [
        text.removeprefix(f"{tmp_path}/") for text in texts(reviewed(tmp_path / "bad.yaml", tmp_path / "none"))
    ] == [
        "bad.yaml: document 1 (Pod): metadata.name: expected a name, found nothing",
        "bad.yaml: document 2: line 5, column 1: expected YAML, found did not find expected node content",
        "none: expected a readable file or directory, found No such file or directory",
    ]


def test_the_standard_input_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"kind: Pod\napiVersion: v1\n")))
    assert texts(reviewed(Path("-")))[0].startswith("standard input: document 1 (Pod): metadata.name")
