"""A directory with a mesh in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .written import SERVICE, namespace, node, pod


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text("---\n".join([namespace(), node(), SERVICE]))
    (tmp_path / "web.yaml").write_text(pod("web", "10.1.0.1"))
    return tmp_path
