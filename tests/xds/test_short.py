"""The way to the control plane: what is read for each call, what is waited for, and what an error says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ambient.identity import roots, svid
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.mesh import Identity
from ambient.xds import nodes, short
from ambient.xds.ca_client import ControlIssuer
from ambient.xds.calls import CallFailed
from ambient.xds.short import ShortCalls
from ambient.xds.trust import Trust

from . import plane as planes
from .plane import Agent, Plane

WEB = Identity("cluster.local", "shop", "web")


def with_agent(folder: Path, test: Callable[[Plane, Agent], Awaitable[None]]) -> None:
    async def main() -> None:
        async with planes.with_agent(folder) as (plane, agent):
            await test(plane, agent)

    asyncio.run(main())


async def issue(agent: Agent) -> Issued:
    return await agent.issuer.issue(svid.request(WEB)[1], WEB, planes.DAY)


async def call(agent: Agent) -> None:
    """Any short call."""
    await agent.call(f"/{nodes.SERVICE}/Report", b"")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what will not come."""
    monkeypatch.setattr(short, "DEADLINE_S", 0.5)


def test_the_token_is_read_for_each_call(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        await issue(agent)
        plane.callers = {"renewed": planes.a_caller()}
        with pytest.raises(IssuingFailed, match="UNAUTHENTICATED"):
            await issue(agent)
        agent.token_file.write_text("renewed")
        await issue(agent)

    with_agent(tmp_path, test)


def test_a_missing_token_is_named(tmp_path: Path) -> None:
    async def test(_: Plane, agent: Agent) -> None:
        agent.token_file.unlink()
        with pytest.raises(IssuingFailed, match=r"cannot read our token .*/token: .*projected volume"):
            await issue(agent)

    with_agent(tmp_path, test)


@pytest.mark.parametrize("content", [None, b"", b"no PEM"], ids=["missing", "empty", "garbage"])
def test_without_roots_nobody_is_taken_for_the_control_plane(tmp_path: Path, content: bytes | None) -> None:
    async def test(_: Plane, agent: Agent) -> None:
        agent.roots_file.unlink()
        if content is not None:
            agent.roots_file.write_bytes(content)
        with pytest.raises(IssuingFailed, match=r"no roots by which.*roots.pem.*ambient-root"):
            await issue(agent)
        with pytest.raises(IssuingFailed, match="no roots"):
            await anext(agent.issuer.watch_roots())

    with_agent(tmp_path, test)


@pytest.mark.usefixtures("soon")
def test_a_control_plane_of_other_roots_is_refused_until_the_file_says_otherwise(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        agent.roots_file.write_bytes(planes.another_authority().bundle_pem)
        with pytest.raises(CallFailed, match=r"CERTIFICATE_VERIFY_FAILED.*by a root in .*roots.pem"):
            await call(agent)
        agent.roots_file.write_bytes(plane.authority.bundle_pem)
        await issue(agent)

    with_agent(tmp_path, test)


@pytest.mark.usefixtures("soon")
def test_a_control_plane_of_another_name_is_refused(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        agent.call = ShortCalls(agent.control(plane, server_name="another.ambient-system.svc"))
        with pytest.raises(CallFailed, match=r"not valid for 'another\.ambient-system\.svc'"):
            await call(agent)
        assert not plane.seen

    with_agent(tmp_path, test)


def test_a_restart_of_the_control_plane_is_waited_for(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        await issue(agent)
        await plane.stop()
        waiting = asyncio.create_task(issue(agent))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await plane.start()
        await waiting

    with_agent(tmp_path, test)


@pytest.mark.usefixtures("soon")
def test_an_absent_control_plane_is_an_error_with_its_cause_in_time(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        await plane.stop()
        with pytest.raises(CallFailed, match=r"Report was not asked of .*Connect call failed.*pod ready"):
            await asyncio.wait_for(call(agent), 5)

    with_agent(tmp_path, test)


@pytest.mark.usefixtures("soon")
def test_a_silent_control_plane_is_given_up_in_time(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        async def never(*_: object) -> list[nodes.PodRef]:
            await asyncio.Event().wait()
            return []

        plane.nodes._apply = never
        with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
            await asyncio.wait_for(call(agent), 5)

    with_agent(tmp_path, test)


def test_one_of_two_replicas_is_enough(tmp_path: Path) -> None:
    async def main() -> None:
        async with planes.running() as one, planes.running() as two:
            two.authority = one.authority  # what its certificate was made by no longer
            await two.stop()
            agent = Agent(tmp_path, one)
            agent.call = ShortCalls(agent.control(two, one), agent.rng)
            for _ in range(4):
                await call(agent)
            assert len(one.seen) == 4

    asyncio.run(main())


def test_what_a_replica_answers_is_not_asked_again(tmp_path: Path) -> None:
    """Not even what may be another's soon: whoever wants it does not come back five times a second."""

    async def test(plane: Plane, agent: Agent) -> None:
        plane.broken = "the API server is away"
        with pytest.raises(CallFailed, match="answered Report with UNAVAILABLE: the API server is away"):
            await call(agent)
        assert len(plane.seen) == 1

    with_agent(tmp_path, test)


def test_an_answer_that_is_no_chain_is_no_certificate(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        plane.certificates._sign = lambda _request, _lifetime: Issued(b"", b"")
        with pytest.raises(IssuingFailed, match="answered with 1 parts"):
            await issue(agent)

    with_agent(tmp_path, test)


def test_what_the_control_plane_told_is_trusted_rather_than_an_answer_of_a_replica_that_lags(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        newer = roots.add_root(plane.authority, datetime.now(UTC)).bundle_pem
        assert (await issue(agent)).roots_pem == plane.authority.bundle_pem
        agent.trust.tell(newer)
        assert (await issue(agent)).roots_pem == newer

    with_agent(tmp_path, test)


def test_a_file_that_lags_behind_a_rotation_locks_nobody_out(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        now = datetime.now(UTC)
        added = roots.add_root(plane.authority, now)
        agent.trust.tell(added.bundle_pem)
        plane.authority = roots.switch_signer(added, now, settle=timedelta(0))
        await plane.stop()
        await plane.start()  # with a certificate by the root that the file does not have
        await issue(agent)

    with_agent(tmp_path, test)


def test_roots_come_from_the_file_until_the_control_plane_tells(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        first, second, third = plane.authority, planes.another_authority(), planes.another_authority()
        bundles = agent.issuer.watch_roots()
        assert await anext(bundles) == first.bundle_pem
        waiting = asyncio.ensure_future(anext(bundles))
        await asyncio.sleep(0.1)  # the file is being watched
        agent.roots_file.write_bytes(second.bundle_pem)
        assert await asyncio.wait_for(waiting, 30) == second.bundle_pem
        waiting = asyncio.ensure_future(anext(bundles))
        await asyncio.sleep(0)
        agent.trust.tell(third.bundle_pem)
        assert await asyncio.wait_for(waiting, 30) == third.bundle_pem
        agent.roots_file.write_bytes(first.bundle_pem)
        agent.trust.tell(second.bundle_pem)
        assert await asyncio.wait_for(anext(bundles), 5) == second.bundle_pem
        await bundles.aclose()

    with_agent(tmp_path, test)


def test_an_answer_that_is_no_message_is_no_certificate(tmp_path: Path) -> None:
    async def garbage(_method: str, _request: bytes) -> bytes:
        return b"\xff"

    issuer = ControlIssuer(garbage, Trust(tmp_path / "roots.pem"))
    with pytest.raises(IssuingFailed, match="no certificate for spiffe"):
        asyncio.run(issuer.issue(svid.request(WEB)[1], WEB, planes.DAY))
