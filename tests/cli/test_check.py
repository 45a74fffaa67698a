"""`ambient check -f`: manifests, offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

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
    assert (result.exit_code, result.stdout) == (0, f"{manifests} is fine: 1 namespaces, 1 policies\n")


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
    assert (found["ok"], len(found["errors"])) == (False, 1)


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path, run: Run) -> None:
    assert run("check", "-f", tmp_path / "none").exit_code == 2
