"""The CA's directory: modes, atomicity, locks, and everything it refuses to take for a CA."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambient.identity import ca_dir, roots
from ambient.identity.roots import Authority

from . import make, virtual


def _rotating() -> Authority:
    return roots.add_root(roots.found("cluster.local", virtual.EPOCH), virtual.EPOCH)


def _switched() -> Authority:
    return roots.switch_signer(_rotating(), virtual.EPOCH + roots.SETTLE)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CA directory with a CA in it."""
    folder = tmp_path / "ca"
    save(folder, make.an_authority())
    return folder


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["umask 000", "umask 022", "umask 777"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    try:
        yield
    finally:
        os.umask(old)


def save(folder: Path, authority: Authority) -> None:
    with ca_dir.locked(folder):
        ca_dir.save(folder, authority)


@pytest.mark.parametrize(
    "authority",
    [roots.found("cluster.local", virtual.EPOCH), _rotating(), _switched()],
    ids=["one root", "adding", "old"],
)
def test_a_ca_is_read_back_as_it_was_saved(tmp_path: Path, authority: Authority) -> None:
    save(tmp_path / "ca", authority)
    loaded = ca_dir.load(tmp_path / "ca")
    assert loaded is not None
    assert loaded.bundle_pem == authority.bundle_pem
    assert [(each.id, each.added_at) for each in loaded.trusted] == [(e.id, e.added_at) for e in authority.trusted]
    assert [each.key is None for each in loaded.trusted] == [each.key is None for each in authority.trusted]
    assert (loaded.trust_domain, loaded.switched_at) == (authority.trust_domain, authority.switched_at)


def test_an_empty_directory_holds_no_ca(tmp_path: Path) -> None:
    assert ca_dir.load(tmp_path) is None


@pytest.mark.usefixtures("umask")
def test_the_secret_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.joinpath("ca").mkdir()
    os.chmod(tmp_path / "ca", 0o755)
    save(tmp_path / "ca", make.an_authority())
    assert mode(tmp_path / "ca" / ca_dir.STATE) == 0o600
    assert mode(tmp_path / "ca" / ca_dir.BUNDLE) == 0o644


def test_a_directory_of_our_making_is_ours_alone(folder: Path) -> None:
    assert mode(folder) == 0o700


def test_the_bundle_file_holds_no_secret(folder: Path) -> None:
    assert b"PRIVATE" not in (folder / ca_dir.BUNDLE).read_bytes()
    assert b"PRIVATE" in (folder / ca_dir.STATE).read_bytes()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o660, 0o601], ids=lambda bits: f"{bits:04o}")
def test_a_secret_open_to_others_is_refused_and_left_as_it_is(folder: Path, bits: int) -> None:
    (folder / ca_dir.STATE).chmod(bits)
    with pytest.raises(ca_dir.CaUnusable, match=f"mode {bits:04o}"):
        ca_dir.load(folder)
    assert mode(folder / ca_dir.STATE) == bits


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777], ids=lambda bits: f"{bits:04o}")
def test_a_directory_others_can_write_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(ca_dir.CaUnusable, match="chmod go-w"), ca_dir.locked(tmp_path):
        pytest.fail("the lock must not be had")


def test_a_symbolic_link_in_place_of_the_secret_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / ca_dir.STATE).rename(tmp_path / "elsewhere")
    (folder / ca_dir.STATE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ca_dir.CaUnusable, match="cannot read"):
        ca_dir.load(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder / ca_dir.STATE, 65534, -1)
    with pytest.raises(ca_dir.CaUnusable, match="belongs to user 65534"):
        ca_dir.load(folder)


def _without(field: str) -> Callable[[dict[str, object]], object]:
    return lambda state: state.pop(field)


def _swap_keys(state: dict[str, object]) -> None:
    signer, coming = state["signer"], state["coming"]
    assert isinstance(signer, dict)
    assert isinstance(coming, dict)
    signer["key"], coming["key"] = coming["key"], signer["key"]


def _drop_key(state: dict[str, object]) -> None:
    signer = state["signer"]
    assert isinstance(signer, dict)
    signer["key"] = None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_without("version"), id="no version"),
        pytest.param(lambda state: state.update(version=2), id="another version"),
        pytest.param(_without("signer"), id="no signer"),
        pytest.param(lambda state: state.update(signer=None), id="an empty signer"),
        pytest.param(_drop_key, id="a signer without key"),
        pytest.param(_swap_keys, id="keys of each other"),
        pytest.param(lambda state: state.update(switched_at="yesterday"), id="no time"),
        pytest.param(lambda state: state.update(old={"certificate": "x", "key": None, "added_at": "x"}), id="no PEM"),
    ],
)
def test_a_damaged_state_is_an_error_never_a_new_ca(
    tmp_path: Path, damage: Callable[[dict[str, object]], object]
) -> None:
    folder = tmp_path / "ca"
    save(folder, _rotating())
    state = json.loads((folder / ca_dir.STATE).read_bytes())
    damage(state)
    (folder / ca_dir.STATE).write_text(json.dumps(state))
    with pytest.raises(ca_dir.CaUnusable, match="not a CA's state"):
        ca_dir.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe"], ids=["empty", "cut", "list", "null", "binary"]
)
def test_a_file_that_is_no_state_is_an_error(folder: Path, content: bytes) -> None:
    (folder / ca_dir.STATE).write_bytes(content)
    with pytest.raises(ca_dir.CaUnusable, match="not a CA's state"):
        ca_dir.load(folder)


def test_what_a_killed_writer_left_behind_hurts_nobody(folder: Path) -> None:
    (folder / ".ca.json.new").write_bytes(b"half a sta")
    before = ca_dir.load(folder)
    save(folder, _rotating())
    after = ca_dir.load(folder)
    assert before is not None
    assert after is not None
    assert after.signer.id != before.signer.id
    assert sorted(each.name for each in folder.iterdir()) == [ca_dir.BUNDLE, ca_dir.STATE, ca_dir.LOCK]


def test_a_lock_is_held_by_one_and_free_afterwards(folder: Path) -> None:
    with open(folder / ca_dir.LOCK, "rb") as other:
        with ca_dir.locked(folder), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_path_that_is_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ca_dir.CaUnusable, match="file"), ca_dir.locked(tmp_path / "file"):
        pytest.fail("the lock must not be had")
