"""The CA in a Secret: one, however many found it; changed by one at a time; and never founded behind anybody's back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from ambient.control import authority
from ambient.control.api import ApiError
from ambient.control.authority import ClusterAuthority
from ambient.identity import ca_state, roots
from ambient.identity.ca_state import CaUnusable
from ambient.identity.roots import Authority, RotationRefused
from tests.identity import make, virtual

from .apiserver import ApiServer, Json, Link

NAMESPACE = "ambient-system"
NO_WAIT = timedelta(0)


def a_replica(server: ApiServer, link: Link | None = None, domain: str = "cluster.local") -> ClusterAuthority:
    return ClusterAuthority(server.api(link), NAMESPACE, domain, now=virtual.now)


def with_server(test: Callable[[ApiServer, ClusterAuthority], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ApiServer()
        await test(server, a_replica(server))

    virtual.run(main())


def the_secret(server: ApiServer) -> Json:
    return server.get("secrets", NAMESPACE, authority.SECRET)


def publish(server: ApiServer, pem: str = "PEM") -> None:
    server.put(
        "configmaps", {"metadata": {"namespace": NAMESPACE, "name": authority.BUNDLE}, "data": {authority.ROOTS: pem}}
    )


def add(found: Authority) -> Authority:
    return roots.add_root(found, virtual.now())


def switch(found: Authority) -> Authority:
    return roots.switch_signer(found, virtual.now(), settle=NO_WAIT)


def test_the_first_to_come_founds_the_ca_and_whoever_comes_later_finds_it() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        with pytest.raises(CaUnusable, match="there is no Secret ambient-system/ambient-ca"):
            await ours.load()
        await ours.found()
        first = await ours.load()
        await a_replica(server).found()
        assert (await a_replica(server).load()).signer.id == first.signer.id
        assert server.count("POST secrets") == 1

    with_server(test)


def test_two_that_found_at_the_same_moment_make_one_root() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        gate = asyncio.Event()
        server.order("POST", "secrets", gate=gate)
        founders = [asyncio.create_task(each.found(), name="founder") for each in (ours, a_replica(server))]
        await asyncio.sleep(1)
        assert server.count("POST secrets") == 2  # both have seen that there is none
        gate.set()
        await asyncio.gather(*founders)
        assert (await ours.load()).signer.id == (await a_replica(server).load()).signer.id
        assert the_secret(server)["metadata"]["generation"] == 1

    with_server(test)


def test_a_founding_whose_answer_was_lost_is_a_founding() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        server.order("POST", "secrets", done_first=True, times=1)
        with pytest.raises(ApiError):
            await ours.found()
        before = the_secret(server)
        await ours.found()
        assert the_secret(server) == before

    with_server(test)


def test_a_ca_that_is_gone_is_not_founded_again_while_it_may_be_trusted() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        publish(server)
        with pytest.raises(CaUnusable, match=r"is gone, and workloads trust its CA: restore it .* delete ConfigMap"):
            await ours.found()
        publish(server, "")
        await ours.found()
        assert await ours.load()

    with_server(test)


def test_an_api_server_that_cannot_say_what_there_is_founds_nothing() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        for plural in ("secrets", "configmaps"):
            with server.trouble("GET", plural, status=503), pytest.raises(ApiError):
                await ours.found()
        assert not server.objects

    with_server(test)


def test_a_step_by_one_counts_for_all() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        added = await ours.step(add)
        assert (await a_replica(server).load()).coming is not None
        assert (await a_replica(server).step(switch)).signer.id == added.newest.id

    with_server(test)


def test_of_two_steps_at_the_same_moment_the_second_looks_again() -> None:
    """Otherwise the second would undo the first, and a root some agents trust already would be forgotten."""

    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        gate = asyncio.Event()
        server.order("PUT", "secrets", gate=gate)
        steps = [asyncio.create_task(each.step(add), name="step") for each in (ours, a_replica(server))]
        await asyncio.sleep(1)
        assert server.count("PUT secrets") == 2
        gate.set()
        done = await asyncio.gather(*steps, return_exceptions=True)
        assert sorted(type(each).__name__ for each in done) == ["Authority", "RotationRefused"]
        stepped = next(each for each in done if isinstance(each, Authority))
        assert (await ours.load()).newest.id == stepped.newest.id

    with_server(test)


def test_a_step_that_never_gets_its_turn_says_so() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        with server.trouble("PUT", "secrets", status=409), pytest.raises(ApiError, match="changed by others 5 times"):
            await ours.step(add)

    with_server(test)


def test_a_refused_step_changes_nothing() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        before = the_secret(server)["metadata"]["resourceVersion"]
        with pytest.raises(RotationRefused):
            await ours.step(switch)
        assert the_secret(server)["metadata"]["resourceVersion"] == before

    with_server(test)


@pytest.mark.parametrize("data", [None, {}, {"ca.json": ""}, {"ca.json": "?"}, {"ca.json": "e30="}], ids=repr)
def test_a_damaged_secret_is_an_error_never_a_new_ca(data: object) -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        server.put("secrets", {"metadata": {"namespace": NAMESPACE, "name": authority.SECRET}, "data": data})
        await ours.found()
        with pytest.raises(CaUnusable, match="is not a CA's state"):
            await ours.load()
        with pytest.raises(CaUnusable):
            await ours.step(add)

    with_server(test)


def test_another_trust_domain_does_not_get_this_ca() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        with pytest.raises(CaUnusable, match=r"of the trust domain 'cluster.local', not 'other.org'"):
            await a_replica(server, domain="other.org").load()

    with_server(test)


def test_the_key_is_in_the_secret_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        assert b"PRIVATE KEY" in base64.b64decode(the_secret(server)["data"]["ca.json"])
        assert "PRIVATE" not in repr(await ours.load())

    caplog.set_level("DEBUG")
    with_server(test)
    assert "founded the CA of cluster.local: root" in caplog.text
    assert "PRIVATE" not in caplog.text


def test_a_watcher_sees_every_state_whatever_happens_between() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        link = Link(server)
        async with contextlib.aclosing(a_replica(server, link).watch()) as states:
            assert "there is no Secret" in str(await anext(states))
            await ours.found()
            assert isinstance(first := await anext(states), Authority)
            link.cut = True
            added = await ours.step(add)
            await asyncio.sleep(60)
            link.cut = False
            assert isinstance(second := await anext(states), Authority)
            assert (second.signer.id, second.newest.id) == (first.signer.id, added.newest.id)
            good = the_secret(server)
            server.put("secrets", {**good, "data": {"ca.json": "?"}})
            assert isinstance(await anext(states), CaUnusable)
            server.put("secrets", good)
            assert isinstance(await anext(states), Authority)
            server.delete("secrets", NAMESPACE, authority.SECRET)
            assert isinstance(await anext(states), CaUnusable)

    with_server(test)


def test_a_watch_that_is_told_it_is_too_old_reads_anew() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        await ours.found()
        with server.trouble("WATCH", "secrets", status=410, times=1):
            async with contextlib.aclosing(a_replica(server).watch()) as states:
                assert isinstance(await anext(states), Authority)
                assert isinstance(await anext(states), Authority)
        assert server.count("GET secrets") == 3

    with_server(test)


def test_what_is_kept_is_what_a_ca_directory_keeps() -> None:
    async def test(server: ApiServer, ours: ClusterAuthority) -> None:
        given = make.an_authority(now=virtual.EPOCH)
        data = {authority.STATE: base64.b64encode(ca_state.encode(given)).decode()}
        server.put("secrets", {"metadata": {"namespace": NAMESPACE, "name": authority.SECRET}, "data": data})
        assert (await ours.load()).bundle_pem == given.bundle_pem

    with_server(test)
