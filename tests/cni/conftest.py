"""What is built once for all of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni import native


@pytest.fixture(scope="session")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> native.Scanner:
    return native.Scanner(tmp_path_factory.mktemp("json"))


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.impatient(tmp_path_factory.mktemp("cni"))
