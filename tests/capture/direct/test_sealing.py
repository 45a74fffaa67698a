"""Somebody answers whom the server's lookup never let the connection in to: not one byte of the application leaves."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ambient.capture import Role, direct, pins
from ambient.capture.libbpf import Link, Object
from ambient.model.mesh import IPAddress
from tests.bpf.native import BPF

from .. import apps, pods
from .conftest import PORT, Pair

pytestmark = pytest.mark.kernel

WORD, END = b"a word in plaintext", b"the tap may stop"


def say(channel: socket.socket, to: str, port: int, how: str) -> None:
    """Connect and talk, whatever comes of it."""
    del channel
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(pods.DEADLINE / 2)  # a new pod's IPv6 needs a second
        try:
            apps.connect(sock, to, port, how)
            sock.settimeout(0.5)
            while True:
                sock.sendall(WORD)
                if not sock.recv(100):
                    return
        except OSError:
            return


@contextmanager
def tapped(pair: Pair) -> Iterator[Callable[[], bool]]:
    """Whether the word left the client's pod."""
    tap = pair.client.node.start(apps.tap, pair.client.link, WORD, END)
    assert tap.receive() == "listening"

    def leaked() -> bool:
        pair.client.run(apps.send_datagram, str(pair.client.gateway4), 9, END)
        return bool(tap.receive())

    yield leaked
    tap.finish()


@pytest.fixture
def impostor(pair: Pair, node: pods.Node) -> Iterator[IPAddress]:
    """The address of a pod of the node that is not of the mesh, and serves."""
    pod = node.pod()
    at = pod.v6 if pair.family == "v6" else pod.v4
    server = pod.start(apps.serve, str(at), PORT)
    assert server.receive() == "listening"
    yield at
    server.finish()


@pytest.mark.parametrize("how", ["", "nonblocking"])
def test_an_address_that_is_another_pods_by_now_gets_no_byte(pair: Pair, impostor: IPAddress, how: str) -> None:
    at = impostor, PORT
    pair.allow(pair.vip, pair.endpoint(ip=at[0]))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), how)
        assert not leaked()
    (record,) = pair.ended()
    assert record.outcome is direct.Outcome.UNADMITTED
    assert (record.flow.admitted, record.flow.sealed) == (False, True)
    assert (record.flow.destination, record.flow.dialled) == (at, pair.vip)
    assert (record.bytes_out, record.bytes_in) == (0, 0)
    assert pair.counted("flow_sealed", "lookup_direct") == [1, 0]


def test_an_address_beyond_the_node_gets_no_byte(pair: Pair) -> None:
    beyond = pair.client.gateway6 if pair.family == "v6" else pair.client.gateway4
    server = pair.client.node.start(apps.serve, str(beyond), PORT)
    assert server.receive() == "listening"
    pair.allow(pair.vip, pair.endpoint(ip=beyond))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), "")
        assert not leaked()
    assert pair.ended()[0].outcome is direct.Outcome.UNADMITTED
    server.finish()


@pytest.mark.parametrize("gone", ["rule del fwmark 0x53a/0xfff lookup 15008", "route flush table 15008"])
def test_without_a_rule_or_a_route_it_gets_no_byte_either_and_the_agent_hears_at_once(
    pair: Pair, impostor: IPAddress, gone: str
) -> None:
    pair.client.ip(f"{'-6' if pair.family == 'v6' else '-4'} {gone}")
    pair.allow(pair.vip, pair.endpoint(ip=impostor))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), "")
        assert not leaked()
    assert pair.ended()[0].flow.sealed


def test_the_plaintext_listener_of_the_server_itself_gets_no_byte(pair: Pair) -> None:
    """As when the verdict was taken back between the connect and the SYN; PERMISSIVE would carry it on."""
    pair.allow(pair.vip)
    listener = pair.listeners["server"][Role.INBOUND_PLAIN]
    with tapped(pair) as leaked:
        with pods.unforwarded(pair.client.node):
            app = pair.client.start(say, *pair.spelled(pair.vip), "")
            pods.eventually(pair.capture.direct.flows)
            pair.delete(pair.vip)
        app.receive()
        assert not leaked()
    assert pair.ended()[0].outcome is not direct.Outcome.CLOSED
    assert pair.counted("lookup_direct") == [0]
    if not apps.idle(listener):
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(100) == b""
    app.finish()


WITHOUT = """
#include "decide.h"
#include "maps.h"
{undefine}
#include "{name}.bpf.c"
"""
REFUSED = "#undef {name}\n#define {name} 0x7777"  # the kernel knows no such option: it refuses


@pytest.fixture
def refused(request: pytest.FixtureRequest, pair: Pair, tmp_path: Path) -> None:
    """The kernel refuses these socket options to the programs of one of our objects: (its name, options)."""
    name, options = request.param
    undefine = "\n".join(REFUSED.format(name=option) for option in options)
    (tmp_path / "without.c").write_text(WITHOUT.format(name=name, undefine=undefine))
    machine = subprocess.check_output(["cc", "-dumpmachine"], text=True).strip()
    command = f"clang -std=gnu11 -O2 -g -target bpf -mcpu=v2 -I/usr/include/{machine} -I{BPF} -c without.c -o without.o"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    with Object((tmp_path / "without.o").read_bytes(), name) as loaded:
        loaded.reuse(pair.capture._pins.maps)
        loaded.load()
        for hook in (hook for hook, of in pins.HOOKS.items() if of.object == name):
            link = Link.pinned(pair.capture._pins._hook_path(hook))
            assert link is not None
            with link, loaded.program(hook) as program:
                link.update(program)


@pytest.mark.parametrize("refused", [("sockops", ["SO_MARK"])], ids=["SO_MARK"], indirect=True)
@pytest.mark.usefixtures("refused")
def test_a_socket_that_cannot_be_marked_is_bound_to_where_nothing_leaves(pair: Pair, impostor: IPAddress) -> None:
    pair.allow(pair.vip, pair.endpoint(ip=impostor))
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), "")
        assert not leaked()
    assert pair.ended()[0].outcome is direct.Outcome.UNADMITTED
    assert pair.counted("flow_sealed", "flow_stopped", "flow_loose") == [1, 1, 0]


@pytest.mark.parametrize("refused", [("sockops", ["SO_MARK"])], ids=["SO_MARK"], indirect=True)
@pytest.mark.usefixtures("refused")
def test_what_is_to_be_the_engines_after_all_and_cannot_be_marked_is_nobodys(pair: Pair, impostor: IPAddress) -> None:
    """Here because its source is not the pod's own address."""
    another = {"v6": "fd77:1::99"}.get(pair.family, "10.77.1.99")
    pair.client.ip(f"addr add {another} dev eth0 nodad" if pair.family == "v6" else f"addr add {another}/24 dev eth0")
    pair.allow(pair.vip, pair.endpoint(ip=impostor))
    source = f"::ffff:{another}" if pair.family == "v4-mapped" else another
    with tapped(pair) as leaked:
        pair.client.run(say, *pair.spelled(pair.vip), f"source={source}")
        assert not leaked()
    assert pair.counted("connect_diverted", "flow_stopped", "flow_loose") == [1, 1, 0]


@pytest.mark.parametrize("refused", [("sockops", ["SO_MARK", "SO_BINDTOIFINDEX"])], ids=["both"], indirect=True)
@pytest.mark.usefixtures("refused")
def test_one_that_nothing_stops_is_left_where_the_agent_finds_it(pair: Pair, impostor: IPAddress) -> None:
    pair.allow(pair.vip, pair.endpoint(ip=impostor))
    app = pair.client.start(apps.move, *pair.spelled(pair.vip))
    assert app.receive() == "ready"
    (flow,) = pair.capture.direct.flows()
    assert (flow.admitted, flow.established_ns is not None) == (False, True)
    assert pair.counted("flow_sealed", "flow_loose") == [0, 2], "the spare tries, too"
    assert pair.capture.direct.destroy([flow]) == 1
    assert pair.ended()[0].outcome is direct.Outcome.DESTROYED
    app.finish()


@pytest.mark.parametrize("refused", [("connect", ["SO_MARK"])], ids=["SO_MARK"], indirect=True)
@pytest.mark.parametrize("verdict", [True, False], ids=["direct", "captured"])
@pytest.mark.usefixtures("refused")
def test_what_connect_cannot_mark_it_refuses(pair: Pair, verdict: bool) -> None:
    if verdict:
        pair.allow(pair.vip)
    assert pair.dial(pair.vip) == apps.FORBIDDEN
    assert pair.counted("connect_mark_failed") == [1]
    assert pair.ended(0) == pair.capture.direct.flows() == []
