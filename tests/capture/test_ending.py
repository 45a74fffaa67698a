"""Whether connections can be ended on this kernel is found out by ending one; each way in which it does not is told."""

from __future__ import annotations

import errno

import pytest

from ambient.capture import sockdiag


def _refuses(_: object) -> set[object]:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(
    ("destroy", "says"),
    [
        (_refuses, "sock_diag was to end a connection of our own: [Errno 1]"),
        (
            lambda _: set(),
            "sock_diag finds no connection: tcp_diag is missing, or built without CONFIG_INET_DIAG_DESTROY",
        ),
        (set, "sock_diag says that it ended a connection of our own, which goes on"),
    ],
    ids=["refused", "no tcp_diag", "a lie"],
)
def test_a_kernel_that_ends_no_connection_is_named(monkeypatch: pytest.MonkeyPatch, destroy: object, says: str) -> None:
    monkeypatch.setattr(sockdiag, "destroy", destroy)
    assert sockdiag.obstacle().startswith(says)


@pytest.mark.kernel
def test_this_kernel_ends_connections() -> None:
    assert sockdiag.obstacle() == ""
