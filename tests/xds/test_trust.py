"""Whom an agent takes for the control plane: by its file, by what it was told, and by both while they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.identity import roots
from ambient.xds.trust import NoRoots, Trust
from tests.identity import make

OLD, NEW = make.an_authority(), make.an_authority()


def filed(folder: Path, content: bytes = OLD.bundle_pem) -> Trust:
    (folder / "roots.pem").write_bytes(content)
    return Trust(folder / "roots.pem")


def test_the_file_is_read_each_time(tmp_path: Path) -> None:
    trust = filed(tmp_path)
    assert trust.for_control_plane() == OLD.bundle_pem
    trust.file.write_bytes(NEW.bundle_pem)
    assert trust.for_control_plane() == NEW.bundle_pem


@pytest.mark.parametrize("file", [OLD, NEW], ids=["a file that lags", "a file that is ahead, after an outage"])
def test_the_file_and_the_newest_word_both_count(tmp_path: Path, file: roots.Authority) -> None:
    trust = filed(tmp_path, file.bundle_pem)
    trust.tell(OLD.bundle_pem)
    trust.tell(NEW.bundle_pem)
    found = trust.for_control_plane()
    assert NEW.bundle_pem in found
    assert (OLD.bundle_pem in found) is (file is OLD)


def test_a_file_that_is_gone_is_no_loss_once_roots_were_told(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "roots.pem")
    with pytest.raises(NoRoots, match=r"roots\.pem.*ambient-root"):
        trust.for_control_plane()
    trust.tell(NEW.bundle_pem)
    assert trust.for_control_plane() == NEW.bundle_pem


@pytest.mark.parametrize("word", [b"", b"no PEM"], ids=["nothing", "garbage"])
def test_roots_that_are_none_change_nothing(tmp_path: Path, word: bytes, caplog: pytest.LogCaptureFixture) -> None:
    trust = filed(tmp_path)
    trust.tell(NEW.bundle_pem)
    trust.tell(word)
    assert trust.told == NEW.bundle_pem
    assert "told roots that are none" in caplog.text
