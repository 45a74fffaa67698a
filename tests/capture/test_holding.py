"""Whose a socket is, is told by the process that holds it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ambient.capture import holding


def test_a_process_holds_its_sockets_and_nothing_that_is_none() -> None:
    with socket.socket() as one, Path("/dev/null").open() as other:
        found = holding.sockets([os.getpid()])
        assert os.fstat(one.fileno()).st_ino in found
        assert os.fstat(other.fileno()).st_ino not in found
        inode = os.fstat(one.fileno()).st_ino
    assert inode not in holding.sockets([os.getpid()])


def test_a_process_that_has_ended_holds_none(tmp_path: Path) -> None:
    (tmp_path / "1" / "fd").mkdir(parents=True)
    (tmp_path / "1" / "fd" / "3").symlink_to("socket:[77]")
    (tmp_path / "1" / "fd" / "4").symlink_to("anon_inode:[eventpoll]")
    assert holding.sockets([1, 2], tmp_path) == {77}
