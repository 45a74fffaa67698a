"""The sockets that the engine dials with."""

from __future__ import annotations

import fcntl

import pytest

from ambient.capture import Capture

from . import apps, pods
from .conftest import Enrol

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("only", [0, 1], ids=["IPv6 sockets serve both families", "IPv6 sockets are for IPv6 only"])
@pytest.mark.skipif(not pods.KERNEL_HAS_IPV6, reason="it is about IPv6 sockets")
def test_every_socket_of_a_batch_reaches_an_ipv4_application(
    capture: Capture, enrol: Enrol, pod: pods.Pod, only: int
) -> None:
    pods.sh(f"ip netns exec {pod.name} sysctl -qw net.ipv6.bindv6only={only}")
    enrol(pod)
    made = capture.make_sockets(pod.netns.cookie, 3)
    assert len(made) == 3
    for sock in made:
        with sock:
            assert not sock.getblocking()
            assert fcntl.fcntl(sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            app = pod.start(apps.serve, "0.0.0.0", 8080)
            assert app.receive() == "listening"
            sock.settimeout(pods.DEADLINE)
            sock.connect((f"::ffff:{pod.v4}", 8080))
            assert sock.recv(100) == b"app"
            app.finish()


def test_none_is_none(capture: Capture, enrol: Enrol, pod: pods.Pod) -> None:
    enrol(pod)
    assert capture.make_sockets(pod.netns.cookie, 0) == []
