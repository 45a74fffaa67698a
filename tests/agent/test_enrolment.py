"""Which keys the engine may have while pods come and go. The kernel and the engine are stood in for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from ambient.agent import enrolment
from ambient.agent.enrolment import Enrolment
from ambient.capture.abi import Role
from ambient.dataplane.desired import PodState
from ambient.dataplane.pods import LocalPods, context_id
from ambient.model.mesh import Identity, Workload, address
from ambient.model.world import World
from tests.dataplane.worlds import a_pod

T = TypeVar("T")
CLIENT, WEB = (context_id(Identity("cluster.local", "shop", name)) for name in ("client", "web"))


class Capture:
    def __init__(self) -> None:
        self.cookies: set[int] = set()

    def enrol(self, space: Any, *, listeners: Mapping[Role, socket.socket] | None, **_: object) -> Any:
        self.cookies.add(space.cookie)
        return listeners or dict.fromkeys(Role, SimpleNamespace(family=socket.AF_INET6, close=lambda: None))

    def leave(self, cookie: int) -> None:
        self.cookies.discard(cookie)

    def forget(self, cookie: int) -> None: ...

    def enrolled(self) -> list[int]:
        return sorted(self.cookies)


class Engine:
    """Keeps what it was told to keep, and which pods it was told to let go."""

    def __init__(self) -> None:
        self.kept: frozenset[int] = frozenset()
        self.left: list[int] = []

    def add_pod(self, pod: PodState) -> None: ...

    def leave_pod(self, cookie: int) -> None:
        self.left.append(cookie)

    def keep_contexts(self, numbers: frozenset[int]) -> None:
        self.kept = numbers


class Store:
    def want(self, identities: frozenset[Identity]) -> None: ...

    def get(self, identity: Identity) -> object:
        return identity


class Node:
    """A node's enrolment, its Worlds made of pods whose netns cookie is the number in their uid."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.capture = Engine(), Capture()
        monkeypatch.setattr(enrolment.find, "processes", lambda _, uids: {uid: int(uid) for uid in uids})
        monkeypatch.setattr(enrolment.netns, "inode_of", lambda pid: pid)
        monkeypatch.setattr(
            enrolment.netns, "open", lambda pid: SimpleNamespace(cookie=pid, inode=pid, close=lambda: None)
        )

        async def in_order(work: Callable[[], T]) -> T:
            return work()

        parts: Any = (self.capture, self.engine, Store(), LocalPods(), in_order)
        self.changes: list[tuple[str, int | None, bool]] = []  # whose, its cookie then, and whether it was captured
        self.enrolment = Enrolment("node-1", Path("/nowhere"), *parts, changed=self.changed)

    def changed(self, key: str) -> None:
        self.changes.append((key, self.enrolment.cookie_of(key), bool(self.capture.cookies)))

    def has(self, **pods: tuple[int, str]) -> None:
        """Converge on a World of these pods: (cookie, service account) by name."""
        workloads = [a_pod_of(name, *about) for name, about in pods.items()]
        asyncio.run(self.enrolment.converge(World.build(workloads=workloads)))

    def idle(self, cookie: int) -> None:
        asyncio.run(self.enrolment.idle(cookie))


def a_pod_of(name: str, cookie: int, account: str) -> Workload:
    pod = a_pod(name, address(f"10.1.0.{cookie}"), service_account=account)
    return Workload(**{field: getattr(pod, field) for field in pod.__slots__} | {"uid": str(cookie)})


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_the_engine_may_have_the_keys_of_this_nodes_pods(node: Node) -> None:
    node.has(client=(1, "client"), web=(2, "web"))
    assert node.engine.kept == {CLIENT, WEB}


def test_a_key_stays_while_a_pod_that_left_has_connections_and_goes_with_the_last(node: Node) -> None:
    node.has(client=(1, "client"), web=(2, "web"))
    node.has(web=(2, "web"))
    assert node.engine.left == [1]
    assert node.engine.kept == {CLIENT, WEB}, "an endpoint may still be tried with it"
    node.idle(1)
    assert node.engine.kept == {WEB}


def test_a_pod_is_told_of_once_it_is_captured_and_before_it_is_let_go(node: Node) -> None:
    node.has(web=(2, "web"))
    assert node.changes == [("shop/web", 2, True)]
    node.has(web=(2, "web"))
    node.has()
    assert node.changes == [("shop/web", 2, True), ("shop/web", None, True)]
    assert node.capture.cookies == set()


def test_a_key_stays_for_the_other_pods_of_its_identity(node: Node) -> None:
    node.has(one=(1, "web"), two=(2, "web"))
    node.has(two=(2, "web"))
    node.idle(1)
    assert node.engine.kept == {WEB}


def test_a_pod_that_is_back_before_its_connections_ended_keeps_its_key(node: Node) -> None:
    node.has(web=(2, "web"))
    node.has()
    node.has(web=(2, "web"))
    node.idle(2)
    assert node.engine.kept == {WEB}


def test_what_an_earlier_agent_captured_keeps_its_key_until_its_connections_ended(node: Node) -> None:
    node.capture.cookies.add(7)
    node.enrolment.inherit({}, {7: CLIENT})
    node.has(web=(2, "web"))
    assert node.engine.left == [7]
    assert node.engine.kept == {CLIENT, WEB}
    node.idle(7)
    assert node.engine.kept == {WEB}


def test_a_pod_that_is_being_forgotten_is_not_let_go_once_more(node: Node) -> None:
    """Its last connection is over, the kernel is slow to take its pins down, and a change comes in between."""

    async def scene() -> None:
        forgetting, forgotten = asyncio.Event(), asyncio.Event()

        async def in_order(work: Callable[[], T]) -> T:
            if getattr(work, "func", None) == node.capture.forget:
                forgetting.set()
                await forgotten.wait()
                node.capture.cookies.discard(1)
            return work()

        node.capture.leave = lambda _: None  # type: ignore[method-assign]  # pins stay until they are forgotten
        node.enrolment._in_order = in_order  # type: ignore[assignment]
        await node.enrolment.converge(World.build(workloads=[a_pod_of("client", 1, "client")]))
        await node.enrolment.converge(World.build())
        idle = asyncio.create_task(node.enrolment.idle(1))
        await forgetting.wait()
        change = asyncio.create_task(node.enrolment.converge(World.build()))
        await asyncio.sleep(0)
        forgotten.set()
        await asyncio.gather(idle, change)
        assert (node.engine.left, node.enrolment.leaving) == ([1], 0), "the engine would never say idle again"

    asyncio.run(scene())
