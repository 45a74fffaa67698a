"""The published bundle: what is trusted, soon after it changed, whoever meddles with it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable

from ambient.control.authority import BUNDLE, ROOTS
from ambient.control.bundle import Bundle
from tests.identity import virtual

from .apiserver import ApiServer

NAMESPACE = "ambient-system"
Bundles = asyncio.Queue[bytes]


async def _each(queue: Bundles) -> AsyncGenerator[bytes, None]:
    while True:
        yield await queue.get()


def publishing(test: Callable[[ApiServer, Bundles], Awaitable[None]], server: ApiServer | None = None) -> None:
    async def main() -> None:
        api_server = server or ApiServer()
        bundles: Bundles = asyncio.Queue()
        publisher = Bundle(api_server.api(), NAMESPACE, rng=random.Random(7))
        task = asyncio.create_task(publisher.publish(_each(bundles)), name="publisher under test")
        try:
            await test(api_server, bundles)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    virtual.run(main())


def published(server: ApiServer) -> str:
    return str(server.get("configmaps", NAMESPACE, BUNDLE)["data"][ROOTS])


async def say(bundles: Bundles, pem: bytes) -> None:
    await bundles.put(pem)
    await asyncio.sleep(1)


def test_every_bundle_is_published() -> None:
    async def test(server: ApiServer, bundles: Bundles) -> None:
        for pem in (b"first", b"second"):
            await say(bundles, pem)
            assert published(server) == pem.decode()

    publishing(test)


def test_what_is_published_already_is_not_written_again() -> None:
    server = ApiServer()
    server.put("configmaps", {"metadata": {"namespace": NAMESPACE, "name": BUNDLE}, "data": {ROOTS: "first"}})

    async def test(_: ApiServer, bundles: Bundles) -> None:
        await say(bundles, b"first")
        await asyncio.sleep(3600)
        assert not server.count("PATCH")

    publishing(test, server)


def test_a_bundle_that_somebody_changed_or_removed_is_put_right() -> None:
    async def test(server: ApiServer, bundles: Bundles) -> None:
        await say(bundles, b"ours")
        named = {"metadata": {"namespace": NAMESPACE, "name": BUNDLE}}
        for meddle in (
            lambda: server.put("configmaps", {**named, "data": {ROOTS: "theirs"}}),
            lambda: server.put("configmaps", {**named, "data": {}}),
            lambda: server.delete("configmaps", NAMESPACE, BUNDLE),
        ):
            meddle()
            await asyncio.sleep(1)
            assert published(server) == "ours"

    publishing(test)


def test_a_bundle_waits_for_an_api_server_that_refuses_and_is_the_newest_then() -> None:
    async def test(server: ApiServer, bundles: Bundles) -> None:
        await say(bundles, b"first")
        with server.trouble("PATCH", "configmaps", status=503):
            await say(bundles, b"second")
            await say(bundles, b"third")
            await asyncio.sleep(600)
            assert server.count("PATCH") < 40
        await asyncio.sleep(60)
        assert published(server) == "third"

    publishing(test)
