"""Backoff of endpoints that cannot be reached."""

from __future__ import annotations

import pytest

from ambient.dataplane.health import Health
from ambient.model.mesh import TUNNEL_PORT, address

IP = address("10.0.0.1")


def test_a_failed_endpoint_is_avoided_until_its_pause_is_over() -> None:
    health = Health()
    assert (IP, 80) not in health
    assert health.failed(IP, 80, now=100.0) == 101.0
    assert (IP, 80) in health
    assert (IP, 81) not in health
    assert health.tick(100.9) == set()
    assert health.tick(101.0) == {IP}
    assert (IP, 80) not in health


def test_a_failed_tunnel_makes_every_port_of_the_endpoint_avoided() -> None:
    health = Health()
    health.failed(IP, TUNNEL_PORT, now=0.0)
    assert (IP, 80) in health
    assert (IP, 9999) in health


def test_each_further_failure_doubles_the_pause_up_to_thirty_seconds() -> None:
    health, now, pauses = Health(), 0.0, []
    for _ in range(7):
        back = health.failed(IP, 80, now)
        assert back is not None
        pauses.append(back - now)
        now = back
        health.tick(now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_failures_while_set_aside_do_not_lengthen_the_pause() -> None:
    health = Health()
    health.failed(IP, 80, now=0.0)
    assert health.failed(IP, 80, now=0.5) is None
    assert health.tick(1.0) == {IP}


def test_a_success_forgets_the_past() -> None:
    health = Health()
    health.failed(IP, 80, now=0.0)
    health.tick(1.0)
    health.failed(IP, 80, now=1.0)
    assert health.worked(IP, 80)
    assert (IP, 80) not in health
    assert health.failed(IP, 80, now=5.0) == 6.0


@pytest.mark.parametrize("thing", [None, "10.0.0.1:80", (IP,), ("10.0.0.1", 80)])
def test_what_is_no_endpoint_is_not_avoided(thing: object) -> None:
    assert thing not in Health()
