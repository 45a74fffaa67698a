"""`ambient check -f` and `ambient lab check -f`: manifests, offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ambient.cli import main

Run = Callable[..., Result]
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: %s}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(NAMESPACE)
    return tmp_path


def test_good_manifests_are_counted(manifests: Path, run: Run) -> None:
    (manifests / "policy.yaml").write_text(POLICY % "DENY")
    result = run("check", "-f", manifests)
    assert (result.exit_code, result.stdout) == (0, f"{manifests} is fine: 1 namespace, 1 policy\n")


def test_one_file_will_do(manifests: Path, run: Run) -> None:
    found = json.loads(run("check", "-f", manifests / "shop.yaml", "-o", "json").stdout)
    assert (found["ok"], found["errors"], found["counts"]["namespaces"]) == (True, [], 1)


def test_every_error_names_file_document_field_and_what_was_expected(manifests: Path, run: Run) -> None:
    (manifests / "policy.yaml").write_text(NAMESPACE.replace("shop", "other") + "---\n" + POLICY % "PERHAPS")
    result = run("check", "-f", manifests)
    assert (result.exit_code, result.stdout) == (1, "")
    for part in ("policy.yaml", "document 2", "spec.action", "expected", "PERHAPS"):
        assert part in result.stderr
    found = json.loads(run("check", "-f", manifests, "-o", "json").stdout)
    assert not found["ok"]
    (error,) = found["errors"]
    assert error == {
        "file": str(manifests / "policy.yaml"),
        "document": 2,
        "object": "AuthorizationPolicy shop/p",
        "field": "spec.action",
        "expected": "ALLOW or DENY",
        "found": "'PERHAPS'",
        "text": result.stderr.strip(),
    }


@pytest.mark.parametrize("command", [("check",), ("lab", "check")], ids=" ".join)
def test_contradictions_and_broken_files_have_their_places_too(manifests: Path, run: Run, command: tuple[str]) -> None:
    (manifests / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: shop}\n"
        "spec: {nodeName: nowhere, containers: [{command: [x]}]}\n"
    )
    assert (
        f"{manifests}/pod.yaml: document 1 (Pod shop/x): spec.nodeName: expected"
        in run(*command, "-f", manifests).stderr
    )
    (manifests / "broken.yaml").write_text("a: [")
    result = run(*command, "-f", manifests)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{manifests}/broken.yaml: document 1: line 2, column 1: expected YAML, found" in result.stderr


def test_several_files_are_checked_together_and_the_standard_input_may_be_one(manifests: Path) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n"
    result = CliRunner().invoke(main, ["check", "-f", str(manifests / "shop.yaml"), "-f", "-"], input=node)
    assert (result.exit_code, result.stdout) == (0, f"{manifests}/shop.yaml, - are fine: 1 node, 1 namespace\n")


def test_what_the_mesh_has_no_use_for_is_noted(manifests: Path, run: Run) -> None:
    (manifests / "x.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    result = run("check", "-f", manifests)
    assert result.exit_code == 0
    assert result.stderr == (
        f"Note: {manifests}/x.yaml: document 1 (Deployment default/x): "
        "apps/v1 Deployment is of no concern to the mesh\n"
    )
    assert len(json.loads(run("check", "-f", manifests, "-o", "json").stdout)["notes"]) == 1


def test_what_only_the_lab_cannot_play_is_told_by_lab_check_in_the_same_words(manifests: Path, run: Run) -> None:
    (manifests / "x.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: shop}\nspec: {type: NodePort}\n"
    )
    assert run("check", "-f", manifests).exit_code == 0
    result = run("lab", "check", "-f", manifests)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{manifests}/x.yaml: document 1 (Service shop/x): spec.type: expected ClusterIP" in result.stderr
    (error,) = json.loads(run("lab", "check", "-f", manifests, "-o", "json").stdout)["errors"]
    assert (error["field"], error["found"]) == ("spec.type", "'NodePort'")


def test_what_the_lab_can_play_is_counted_as_the_mesh_does(manifests: Path, run: Run) -> None:
    result = run("lab", "check", "-f", manifests)
    assert (result.exit_code, result.stdout) == (0, f"{manifests} is fine: 1 namespace\n")


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path, run: Run) -> None:
    assert run("check", "-f", tmp_path / "none").exit_code == 2


def test_a_setting_of_the_mesh_that_nobody_reads_is_noted(manifests: Path, run: Run) -> None:
    (manifests / "shop.yaml").write_text(
        "apiVersion: v1\nkind: Namespace\n"
        "metadata:\n"
        "  name: shop\n"
        "  labels: {ambient.dev/require-mtl: 'true', istio.io/dataplane-mode: enabled, team: shop}\n"
        "  annotations: {ambient.dev/mode: enabled}\n"
    )
    where = f"Note: {manifests}/shop.yaml: document 1 (Namespace shop): metadata"
    expected = [
        f'{where}.annotations["ambient.dev/mode"]: the mesh does not read this here: '
        "it belongs to the labels of a Namespace or the labels of a Pod",
        f'{where}.labels["ambient.dev/require-mtl"]: the mesh does not read this here: did you mean '
        "ambient.dev/require-mtls?",
        f"{where}.labels[\"istio.io/dataplane-mode\"]: neither ambient nor none: 'enabled' changes nothing",
    ]
    for command in (["check"], ["lab", "check"]):
        result = run(*command, "-f", manifests)
        assert result.exit_code == 0
        assert result.stderr.splitlines() == expected
