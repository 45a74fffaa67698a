"""Local ports of what is dialled for a client that the app is to be shown."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

import pytest

from ambient.dataplane import abi, wire

from . import apps, bpfmap, harness, verdicts

pytestmark = pytest.mark.kernel

MANY = 7_400  # the kernel tries half of its range first, and every other port of that
AGAIN = 12_000
HOST = "127.0.7.7"  # nobody else's ports are in the way


@pytest.fixture
def door(far: harness.Node) -> Iterator[tuple[apps.Address, socket.socket]]:
    """Where clients dial, and the app's listening socket; each connection is bound before it is made."""
    clients = bpfmap.ClientsMap(16384)
    far.agent.send(wire.Message(abi.Type.CLIENTS_MAP, fds=[clients.fd]))
    plain = far.agent.handlers[abi.Type.ACCEPTED]
    far.agent.handlers[abi.Type.ACCEPTED] = lambda question: dataclasses.replace(plain(question), show_client=True)
    far.set_stash(512)
    with contextlib.closing(clients), apps.loopback_listener(HOST) as app:
        app.settimeout(apps.PATIENCE)
        yield far.plain(verdicts.Choice(app.getsockname())), app


def dial(door: apps.Address, app: socket.socket, opened: contextlib.ExitStack, count: int) -> list[int]:
    """So many connections, which stay; the ports that the app sees."""
    ports = []
    for _ in range(count):
        opened.enter_context(apps.connect(door))
        server, (_, port) = app.accept()
        opened.enter_context(server)
        ports.append(port)
    return ports


def test_the_thousandth_connection_to_an_app_costs_no_more_than_the_first(
    far: harness.Node, door: tuple[apps.Address, socket.socket]
) -> None:
    with contextlib.ExitStack() as opened:
        dial(*door, opened, 100)
        began = far.engine.cpu_seconds()
        ports = dial(*door, opened, 500)
        early = far.engine.cpu_seconds() - began
        ports += dial(*door, opened, MANY - 1100)
        began = far.engine.cpu_seconds()
        ports += dial(*door, opened, 500)
        late = far.engine.cpu_seconds() - began
        assert len(set(ports)) == len(ports), "two living connections had one port"
        assert late < 3 * early + 0.05, f"500 connections cost {early:.2f} s of CPU at first, {late:.2f} s in the end"


def test_connections_that_have_just_ended_do_not_make_the_next_dearer(
    far: harness.Node, door: tuple[apps.Address, socket.socket]
) -> None:
    """Where the client closes first, the engine's port is taken for another minute: TIME_WAIT."""
    with contextlib.ExitStack() as opened:
        dial(*door, opened, 100)
        began = far.engine.cpu_seconds()
        dial(*door, opened, 500)
        early = far.engine.cpu_seconds() - began
        clients, servers = [], []
        for _ in range(MANY - 1100):
            clients.append(apps.connect(door[0]))
            servers.append(door[1].accept()[0])
        for client, server in zip(clients, servers, strict=True):
            client.close()
            assert server.recv(1) == b""
            server.close()
        far.agent.await_ended(len(clients))
        began = far.engine.cpu_seconds()
        for _ in range(AGAIN):  # so many that their ports come round to those
            client = apps.connect(door[0])
            server, _ = door[1].accept()
            server.close()
            assert client.recv(1) == b""
            client.close()
        late = (far.engine.cpu_seconds() - began) / AGAIN * 500
        assert late < 3 * early + 0.05, f"500 connections cost {early:.2f} s of CPU at first, {late:.2f} s in the end"


def test_ports_that_are_taken_are_passed_over(door: tuple[apps.Address, socket.socket]) -> None:
    with contextlib.ExitStack() as opened:
        last = dial(*door, opened, 100)[-1]
        taken = set()
        for port in range(last + 1, last + 100):
            mine = opened.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # taken by one of those above
                mine.bind((HOST, port))
                taken.add(port)
        assert taken
        assert not taken & set(dial(*door, opened, 200))
