"""A node of the mesh without a mesh: a real engine, a fake agent and loopback sockets in the place of captured ones.

`Node` by itself is enough to attack a tunnel port; two of them, `near` (the client's) and `far` (the server's), carry
connections. Its default answers allow everything; tests replace those they are about.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import pathlib
import socket
from collections.abc import Iterator, Sequence

from ambient.dataplane import abi

from . import agent, apps, pki, process, verdicts

POD = 1
CONTEXT = 1


class Node:
    """engine, agent, and what was told to the agent, so that the next one can say it again.

    choices: by listener, what the default answer to an accepted connection carries to.
    """

    def __init__(
        self, run_dir: pathlib.Path, leaf: pki.Leaf, *, threads: int = 1, max_fds: int = 0, **settings: int
    ) -> None:
        self.leaf = leaf
        self.choices: dict[int, Sequence[verdicts.Choice]] = {}
        self.stash = 32
        self.leaves = False  # the engine is expected to end by itself
        self._settings = settings
        self._listeners: dict[int, tuple[socket.socket, abi.Role]] = {}
        self._numbers = itertools.count(4)
        self.engine = process.Engine(run_dir, threads, max_fds=max_fds)
        try:
            self.agent = self._attach()
        except BaseException:
            self.engine.kill()
            raise

    def _attach(self) -> agent.Agent:
        handlers: dict[abi.Type, agent.Handler] = {
            abi.Type.ACCEPTED: lambda question: verdicts.Carry(self.choices[question.body.listener]),
            abi.Type.TUNNEL: lambda _: verdicts.Accept(),
            abi.Type.REQUEST: lambda question: verdicts.Carry([verdicts.Choice(parse(question.authority))]),
        }
        fresh = agent.Agent(self.engine.run_dir, self.engine.threads, handlers)
        fresh.settings(**self._settings)
        fresh.pod(POD, want=self.stash)
        fresh.context(CONTEXT, self.leaf)
        for number, (sock, role) in self._listeners.items():
            self._introduce(fresh, number, sock, role)
        for _ in range(2):  # when the first is answered, the engine has read all of it; then the stash it asked for too
            fresh.inventory(listeners=False)
        return fresh

    def next_agent(self) -> agent.Agent:
        """The agent is gone (or will be, now that it is replaced): a new one attaches and says all there is to say."""
        self.agent = self._attach()
        return self.agent

    def set_stash(self, want: int) -> None:
        """Keep this many sockets at every worker."""
        self.stash = want
        self.agent.pod(POD, want=want)

    @staticmethod
    def _introduce(to: agent.Agent, number: int, sock: socket.socket, role: abi.Role) -> None:
        to.listen(number, sock, role, context=CONTEXT if role is abi.Role.INBOUND_TUNNEL else 0)

    def outbound(self, *choices: verdicts.Choice, host: str = "127.0.0.1") -> apps.Address:
        """Where a client dials to be carried to one of these."""
        return self.listen(abi.Role.OUTBOUND, *choices, host=host)[1]

    def plain(self, *choices: verdicts.Choice, host: str = "127.0.0.1") -> apps.Address:
        """Where a client outside the mesh dials the pod."""
        return self.listen(abi.Role.INBOUND_PLAIN, *choices, host=host)[1]

    def tunnel(self, host: str = "127.0.0.1") -> apps.Address:
        """A tunnel port."""
        return self.listen(abi.Role.INBOUND_TUNNEL, host=host)[1]

    def listen(self, role: abi.Role, *choices: verdicts.Choice, host: str = "127.0.0.1") -> tuple[int, apps.Address]:
        number = next(self._numbers) << 2 | role
        self.choices[number] = choices
        sock = apps.loopback_listener(host)
        sock.setblocking(False)
        self._listeners[number] = sock, role
        self._introduce(self.agent, number, sock, role)
        return number, sock.getsockname()[:2]

    def listener(self, number: int) -> socket.socket:
        """Our copy of a listening socket."""
        return self._listeners[number][0]

    def give_listeners(self, heir: Node) -> None:
        """Another engine listens on the same sockets from now on, too; or this one again."""
        for number, (sock, role) in self._listeners.items():
            heir.choices[number] = self.choices[number]
            if heir is not self:
                heir._listeners[number] = sock.dup(), role
            heir._introduce(heir.agent, number, sock, role)
        heir.agent.inventory(listeners=False)

    def close(self) -> None:
        """End the agent, then the engine (if it did not leave); every record must have been about a connection of its
        own."""
        try:
            self.agent.close()
            ids = [(ended.worker, ended.body.id) for ended in self.agent.ended]
            assert len(ids) == len(set(ids)), "a connection was reported ended twice"
            if not self.leaves:
                self.engine.stop()
            elif self.engine.is_alive():
                self.engine.await_end()
        finally:
            if self.engine.is_alive():
                self.engine.kill()
            for sock, _ in self._listeners.values():
                sock.close()


class Pair:
    """Two nodes. `tunnel` is the far node's tunnel port; `target` the number near shares tunnels to it by."""

    TARGET = 77

    def __init__(self, folder: pathlib.Path, *, threads: int = 1, max_fds: int = 0, **settings: int) -> None:
        self.ca = pki.Authority()
        with contextlib.ExitStack() as undo:
            self.near = Node(folder / "near", self.ca.svid("shop", "web"), threads=threads, max_fds=max_fds, **settings)
            undo.callback(self.near.close)
            self.far = Node(folder / "far", self.ca.svid("shop", "db"), threads=threads, max_fds=max_fds, **settings)
            undo.pop_all()
        self.tunnel = self.far.tunnel()

    def via_tunnel(self, app: apps.Address, **changes: object) -> verdicts.Choice:
        choice = verdicts.Choice(dial=self.tunnel, authority=app, target=self.TARGET, context=CONTEXT)
        return dataclasses.replace(choice, **changes)  # type: ignore[arg-type]

    def to(self, app: apps.Address) -> apps.Address:
        """Where a client dials to reach `app` through both engines."""
        return self.near.outbound(self.via_tunnel(app))

    def close(self) -> None:
        try:
            self.near.close()
        finally:
            self.far.close()


@contextlib.contextmanager
def pair(folder: pathlib.Path, **options: int) -> Iterator[Pair]:
    """Options are those of Node."""
    nodes = Pair(folder, **options)
    try:
        yield nodes
    finally:
        nodes.close()


@contextlib.contextmanager
def node(folder: pathlib.Path, leaf: pki.Leaf, **options: int) -> Iterator[Node]:
    one = Node(folder, leaf, **options)
    try:
        yield one
    finally:
        one.close()


def parse(authority: str) -> apps.Address:
    """ip:port, IPv6 in brackets, as CONNECT has it."""
    host, _, port = authority.rpartition(":")
    return str(ipaddress.ip_address(host.strip("[]"))), int(port)
