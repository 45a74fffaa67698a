"""What signs in each replica: the same everywhere, through rotations and while its Secret is being restored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from ambient.control import authority
from ambient.control.authority import ClusterAuthority
from ambient.control.ca import SERVING_LIFETIME, ControlCA
from ambient.identity import csr, profile, roots, svid
from ambient.identity.ca_state import CaUnusable
from ambient.identity.issuer import IssuingFailed
from ambient.identity.roots import Authority
from ambient.identity.signing import Signer
from ambient.identity.svid import Svid, UntrustedPeer
from ambient.model.mesh import Identity
from tests.identity import make, tls, virtual

from .apiserver import ApiServer, Link

NAMES = ("ambient-control.ambient-system.svc", "ambient-control.ambient-system.svc.cluster.local")
WEB = make.an_identity("web")
Source = asyncio.Queue[Authority | Signer | CaUnusable]


async def _each(queue: Source) -> AsyncGenerator[Authority | Signer | CaUnusable, None]:
    while True:
        yield await queue.get()


@contextlib.asynccontextmanager
async def running(ca: ControlCA) -> AsyncIterator[ControlCA]:
    task = asyncio.create_task(ca.run(), name="CA under test")
    try:
        await asyncio.sleep(0.1)
        yield ca
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def with_ca(test: Callable[[Source, ControlCA], Awaitable[None]]) -> None:
    async def main() -> None:
        source: Source = asyncio.Queue()
        async with running(ControlCA(_each(source), NAMES, now=virtual.now)) as ca:
            await test(source, ca)

    virtual.run(main())


async def become(source: Source, state: Authority | CaUnusable) -> None:
    await source.put(state)
    await asyncio.sleep(0.1)


def an_svid(ca: ControlCA, identity: Identity, now: datetime) -> Svid:
    """What an agent makes of what it gets."""
    key, request = svid.request(identity)
    issued = ca.sign(csr.read(request), make.HOUR)
    return svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=now)


def own_leaf(ca: ControlCA) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.serving().chain_pem)


def test_before_there_is_a_ca_it_says_what_is_missing() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        await become(source, CaUnusable("there is no Secret"))
        with pytest.raises(IssuingFailed, match="not ready: there is no Secret"):
            an_svid(ca, WEB, virtual.now())
        with pytest.raises(IssuingFailed, match="not ready"):
            ca.serving()

    with_ca(test)


def test_whoever_waits_for_it_is_told() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        waiting = asyncio.create_task(ca.ready(), name="waiting")
        await asyncio.sleep(1)
        assert not waiting.done()
        await become(source, make.an_authority(now=virtual.now()))
        await waiting
        assert an_svid(ca, WEB, virtual.now()).identity == WEB

    with_ca(test)


def test_a_ca_that_became_unusable_signs_on_as_before_and_says_so() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        given = make.an_authority(now=virtual.now())
        await become(source, given)
        await become(source, CaUnusable("the Secret is gone"))
        assert an_svid(ca, WEB, virtual.now()).signed_by == given.signer.id
        assert ca.error == "the Secret is gone"
        await become(source, given)
        assert ca.error == ""

    with_ca(test)


def test_a_lifetime_out_of_bounds_is_no_certificate() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        await become(source, make.an_authority(now=virtual.now()))
        with pytest.raises(IssuingFailed, match="gives 0:00:05 to 7 days"):
            ca.sign(csr.read(svid.request(WEB)[1]), timedelta(days=8))

    with_ca(test)


def test_the_replicas_own_certificate_is_for_its_names_and_for_no_workload() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        await become(source, make.an_authority(now=virtual.now()))
        leaf = own_leaf(ca)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
        with pytest.raises(UntrustedPeer, match="no URI name"):
            svid.read_peer(make.der(leaf), "cluster.local", now=virtual.now())

    with_ca(test)


def test_the_replicas_own_certificate_is_renewed_at_half_of_its_life() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        await become(source, make.an_authority(now=virtual.now()))
        first = own_leaf(ca)
        await asyncio.sleep(SERVING_LIFETIME.total_seconds() * 0.4)
        assert own_leaf(ca) == first
        await asyncio.sleep(SERVING_LIFETIME.total_seconds() * 0.2)
        second = own_leaf(ca)
        assert second != first
        assert second.not_valid_after_utc > first.not_valid_after_utc + SERVING_LIFETIME * 0.4

    with_ca(test)


def test_the_replicas_own_certificate_follows_the_signer_at_once() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        given = make.an_authority(now=virtual.now())
        added = roots.add_root(given, virtual.now())
        await become(source, given)
        await become(source, added)
        assert profile.issued_by(own_leaf(ca), given.signer.certificate)
        await become(source, roots.switch_signer(added, virtual.now(), settle=timedelta(0)))
        assert profile.issued_by(own_leaf(ca), added.newest.certificate)

    with_ca(test)


def test_a_root_at_its_end_is_an_error_and_what_was_issued_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        ends = profile.ROOT_LIFETIME - timedelta(hours=1)
        await become(source, make.an_authority(now=virtual.now() - ends))
        await asyncio.sleep(3600)
        assert "rotate the root" in ca.error
        assert ca.serving().not_after <= virtual.now()

    with_ca(test)
    assert caplog.text.count("rotate the root") < 200


def test_roots_are_told_at_once_and_only_when_they_change() -> None:
    async def test(source: Source, ca: ControlCA) -> None:
        bundles = ca.watch_roots()
        first = asyncio.ensure_future(anext(bundles))
        given = make.an_authority(now=virtual.now())
        await become(source, given)
        assert await first == given.bundle_pem
        second = asyncio.ensure_future(anext(bundles))
        await become(source, given)
        await asyncio.sleep(SERVING_LIFETIME.total_seconds())
        assert not second.done()
        added = roots.add_root(given, virtual.now())
        await become(source, added)
        assert await second == added.bundle_pem
        await bundles.aclose()

    with_ca(test)


class Replica:
    """One with the CA of the cluster, on its own way to the API. In real time, for OpenSSL looks at the real clock."""

    def __init__(self, server: ApiServer) -> None:
        self.link = Link(server)
        self.cluster = ClusterAuthority(server.api(self.link), "ambient-system", "cluster.local")
        self.ca = ControlCA(self.cluster.watch(), NAMES)


def _all_meet(*held: Svid) -> None:
    for client in held:
        for server in held:
            tls.meet(client, server)


def test_a_rotation_in_a_cluster_never_parts_two_workloads_even_if_one_replica_lags_a_step_behind() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = Replica(server), Replica(server)
        await first.cluster.found()
        async with running(first.ca), running(second.ca):

            def certificates() -> list[Svid]:
                return [an_svid(replica.ca, WEB, datetime.now(UTC)) for replica in (first, second)]

            held = certificates()
            for step in (
                lambda state: roots.add_root(state, datetime.now(UTC)),
                lambda state: roots.switch_signer(state, datetime.now(UTC), settle=timedelta(0)),
                lambda state: roots.drop_old(state, datetime.now(UTC), longest=timedelta(0)),
            ):
                second.link.flowing.clear()
                await first.cluster.step(step)
                await asyncio.sleep(0.05)
                assert first.ca.serving().chain_pem != second.ca.serving().chain_pem
                fresh = certificates()
                _all_meet(*held, *fresh)  # the second replica's, too, which has not heard of the step
                second.link.flowing.set()
                await asyncio.sleep(0.05)
                held = certificates()
                assert len({each.roots_pem for each in held}) == 1
                _all_meet(*held)

    asyncio.run(main())


def test_authority_names_are_what_the_manifests_say() -> None:
    assert (authority.SECRET, authority.BUNDLE, authority.ROOTS) == ("ambient-ca", "ambient-root", "roots.pem")
