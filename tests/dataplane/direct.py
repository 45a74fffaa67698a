"""A Proxy beside a kernel that may go by its decisions: two captured pods of node-1, and a Service with one on each."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TypeVar

from ambient.capture.direct import Flow as KernelFlow
from ambient.capture.direct import Place, Verdict
from ambient.dataplane import abi, wire
from ambient.dataplane.pods import listener_id
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.ways import Ways
from ambient.dataplane.wire import Message
from ambient.model.mesh import Workload, address
from ambient.model.world import diff
from ambient.observe.records import Ending, Flow
from tests.dataplane import proxied
from tests.dataplane.standing import Kernel
from tests.dataplane.worlds import CLIENT_IP, WEB_VIP, a_pod, a_world, the_pods

T = TypeVar("T")
NEAR_IP = address("10.1.0.5")
SOURCE: Place = (CLIENT_IP, 40000)
VIP: Place = (WEB_VIP, 80)
NEAR: Place = (NEAR_IP, 8080)
OUTSIDE: Place = (address("203.0.113.9"), 443)


def a_near_pod(name: str = "near", app: str = "web", **fields: object) -> Workload:
    """On the client's node, behind the Service."""
    return replace(a_pod(name, NEAR_IP, **fields), labels={"app": app})  # type: ignore[arg-type]


class Records(proxied.Records):
    """Those of the kernel's connections in `direct`."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: list[tuple[Flow, Ending]] = []
        self.flushed = 0
        self.written = asyncio.Event()

    def ended_directly(self, flow: Flow, *endings: Ending) -> None:
        self.direct.extend((flow, ending) for ending in endings)

    def flush(self) -> None:
        self.flushed += 1
        self.written.set()


def in_a_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """The test runs in an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(test(**fixtures))

    return run


async def _at_once(work: Callable[[], T]) -> T:
    return work()


class Node:
    """One agent's data plane. `captured`: netns cookies by workload key."""

    def __init__(self, *more: object, kernel: Kernel | None = None, first_id: int = 1, unfit: str = "") -> None:
        self.world = a_world(a_near_pod(), *more)
        self.kernel = kernel or Kernel()
        self.pods = the_pods(self.world)
        self.captured = {pod.workload: pod.cookie for pod in self.pods}
        self.records, self.link = Records(), proxied.Link()
        self.proxy = Proxy(
            self.world, self.pods, self.records, first_id=first_id, clock=lambda: 0.0, rng=random.Random(1)
        )
        self.proxy.serve(self.link)  # type: ignore[arg-type]
        self.ways = Ways(
            self.kernel,
            self.proxy.decisions,
            self.pods,
            self.records,
            world=lambda: self.world,
            in_order=_at_once,
            touched=self.proxy.touched,
            answered=self.proxy.answered,
            lease_s=60.0,
            unfit=unfit,
        )
        self.proxy.let_pass(self.ways, self.captured.get)
        self.client = self.captured["shop/client"]

    def dial(self, place: Place = VIP) -> abi.Answer:
        """A connection that the engine took, and asks about."""
        return self.asked(place)[0]

    def asked(self, place: Place) -> tuple[abi.Answer, dict[Place, int]]:
        """Its answer, and the weights of what the answer names."""
        body = abi.Accepted(
            question=9,
            listener=listener_id(self.client, abi.Role.OUTBOUND),
            from_=wire.addr(*SOURCE),
            to=wire.addr(*place),
        )
        self.proxy.on_message(self.link, Message(abi.Type.ACCEPTED, body))  # type: ignore[arg-type]
        message = self.link.sent.pop()
        assert isinstance(message.body, abi.Answer)
        weights = {}
        for at in range(message.body.choices):
            choice = abi.Choice.from_buffer_copy(message.tail, at * 72)
            end = choice.authority if choice.target else choice.dial
            weights[wire.read_addr(end)] = choice.weight
        return message.body, weights

    def verdict(self, place: Place = VIP) -> Verdict | None:
        return self.kernel.verdicts.get((self.client, place))

    def connect(self, place: Place = VIP, endpoint: Place | None = None, port: int = 40001) -> KernelFlow:
        """A connection that the kernel lets through."""
        flow = self.kernel.connect(self.client, (CLIENT_IP, port), place, endpoint)
        assert flow is not None, "captured"
        return flow

    def change(self, *upserts: object, removals: object = ()) -> None:
        """The World is another, and every decision judged by it."""
        before = self.world
        self.world = before.replace(upserts, removals, revision="2")  # type: ignore[arg-type]
        self.proxy.world = self.world
        self.proxy.touched(diff(before, self.world).touched())

    async def settled(self) -> None:
        """All that was to be cut is, and recorded."""
        running = asyncio.create_task(self.ways.run())
        try:
            async with asyncio.timeout(30):
                await self.ways.settled()
        finally:
            running.cancel()
        while self.kernel.ring:
            self.ways.ended.read()
