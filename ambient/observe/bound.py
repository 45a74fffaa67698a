"""A listening unix socket at a path of ours, for its owner only. Knows nothing of what is said over it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path


class Bound:
    """`sock` listens at `path` (mode 0600) from here until close()."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Replaces the socket a dead process left. Raises OSError where a living one answers."""
        self.path = path
        self.sock = _listen(path, backlog)
        found = path.stat()
        self._inode = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Stop listening, and remove the path, unless another has put its own there."""
        self.sock.close()
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == self._inode:
            self.path.unlink()


def _listen(path: Path, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind() gives the path this mode: at no moment is it wider
        try:
            listener.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "another agent is listening there; stop it first", str(path)) from None
            path.unlink()
            listener.bind(str(path))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its backlog is full, so somebody owns it
            return True
        return True
