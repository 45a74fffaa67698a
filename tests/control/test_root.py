"""A control plane as a whole: replicas, their API server, and the agents of two nodes over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from ambient.control import lease
from ambient.control.authority import BUNDLE, ROOTS, SECRET, ClusterAuthority
from ambient.identity import profile, roots
from ambient.identity.issuer import IssuingFailed
from ambient.model.mesh import Identity
from tests.identity import make, tls
from tests.identity.test_ca_files import LOW, MIDDLE, OTHER, ROOT, write

from .replicas import SYSTEM, Api, Node, Replica, a_pod, an_api, an_own_token, replicas

WEB, DB = Identity("cluster.local", "shop", "web"), Identity("cluster.local", "shop", "db")
Test = Callable[[Api, Replica, Replica], Awaitable[None]]


def with_two(test: Test) -> None:
    async def main() -> None:
        api = an_api()
        async with replicas(api, "one", "two") as (one, two):
            await one.until(lambda: ("configmaps", SYSTEM, BUNDLE) in api.server.objects)
            await test(api, one, two)

    asyncio.run(main())


def test_one_of_two_that_start_together_founds_the_ca_and_both_sign_by_it(tmp_path: Path) -> None:
    async def test(api: Api, one: Replica, two: Replica) -> None:
        assert api.server.count("POST secrets") == 1
        root = api.authority().bundle_pem.decode()
        assert api.server.get("configmaps", SYSTEM, BUNDLE)["data"] == {ROOTS: root}
        held = []
        for name, identity, replica in (("node-1", WEB, one), ("node-2", DB, two)):
            node = Node(tmp_path, api, name, replica)
            node.mount()
            held.append(await node.issue(identity))
        tls.meet(*held)
        assert [replica.control.certificates.counts["issued"] for replica in (one, two)] == [1, 1]

    with_two(test)


def test_what_has_to_be_done_at_the_first_world_is_done_once_and_before_anybody_is_served() -> None:
    async def main() -> None:
        api, served = an_api(), []
        async with replicas(api, "one", serving=False) as (one,):
            one.control._at_first_world = lambda: served.append(bool(one.control.port))
            await one.until(lambda: bool(one.control.port))
            api.cluster.put(a_pod("api", "node-2", "10.1.0.3"))
            await one.until(lambda: "shop/api" in one.control.world.workloads)
            assert served == [False]

    asyncio.run(main())


def test_a_ca_that_is_gone_is_not_founded_again_and_the_replicas_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        api = an_api()
        api.server.put("configmaps", {"metadata": {"namespace": SYSTEM, "name": BUNDLE}, "data": {ROOTS: "a root"}})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), replicas(api, "one"):
                pass
        assert ("secrets", SYSTEM, SECRET) not in api.server.objects

    asyncio.run(main())
    assert "is gone, and workloads trust its CA: restore it from a backup" in caplog.text


def test_an_agent_gets_the_identities_of_its_own_pods_from_any_replica(tmp_path: Path) -> None:
    async def test(api: Api, one: Replica, two: Replica) -> None:
        for replica in (one, two):
            node = Node(tmp_path, api, "node-1", replica)
            node.mount()
            assert (await node.issue(WEB)).identity == WEB
            with pytest.raises(IssuingFailed, match=r"PERMISSION_DENIED: .*no pod of that identity.*on node node-1"):
                await node.issue(DB)
            assert replica.control.certificates.counts == {"issued": 1, "not_on_node": 1}

    with_two(test)


BAD_TOKENS = {
    "of another audience": ({"aud": ["https://kubernetes.default.svc"]}, "other_audience", "not for ambient-control"),
    "expired": ({"exp": 1_700_000_000}, "expired", "the token has expired"),
    "of another account": (
        {"sub": "system:serviceaccount:shop:web"},
        "other_account",
        "is not one of system:serviceaccount:ambient-system:ambient-agent",
    ),
    "unknown to the API server": ({"jti": "forged"}, "refused", "the API server refused the token: token is unknown"),
}


@pytest.mark.parametrize(("claims", "reason", "says"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_with_a_bad_token_there_is_neither_a_certificate_nor_a_world(
    tmp_path: Path, claims: dict[str, object], reason: str, says: str
) -> None:
    async def test(api: Api, one: Replica, _: Replica) -> None:
        async with Node(tmp_path, api, "node-1", one, token=an_own_token(**claims)) as node:
            node.mount()
            with pytest.raises(IssuingFailed, match=f"UNAUTHENTICATED: .*{says}"):
                await node.issue(WEB)
            await node.until(lambda: any(says in str(item) for item in node.items))
            assert one.control.callers.refused[reason] >= 2
            assert not one.control.certificates.counts

    with_two(test)


def test_while_nobody_can_be_asked_a_stranger_is_told_to_come_again_and_who_is_known_is_served(tmp_path: Path) -> None:
    async def test(api: Api, one: Replica, _: Replica) -> None:
        known, stranger = (Node(tmp_path, api, name, one) for name in ("node-1", "node-2"))
        known.mount()
        stranger.mount()
        await known.issue(WEB)
        api.offline = True
        await known.issue(WEB)
        with pytest.raises(IssuingFailed, match="UNAVAILABLE: the API server cannot be asked"):
            await stranger.issue(DB)
        async with stranger:
            await stranger.until(lambda: any("cannot be asked" in str(item) for item in stranger.items))
        assert not one.control.callers.refused
        api.offline = False
        await stranger.issue(DB)

    with_two(test)


def test_a_killed_replicas_agents_are_at_another_in_time_and_miss_nothing(tmp_path: Path) -> None:
    async def test(api: Api, one: Replica, two: Replica) -> None:
        node = Node(tmp_path, api, "node-1", one, two)
        node.mount()
        async with node:
            await node.has("shop/web")
            serving, other = (one, two) if one.control.discovery.counts.connected else (two, one)
            await serving.kill()
            api.cluster.put(a_pod("api", "node-2", "10.1.0.3"))
            await other.until(lambda: other.control.discovery.counts.connected == 1)
            await node.has("shop/api")
            assert (await node.issue(WEB)).identity == WEB
            assert not [item for item in node.items if isinstance(item, Exception)]  # nobody had to be told

    with_two(test)


def test_the_other_replica_writes_once_the_holder_of_the_lease_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RETRY_S", 0.1)

    async def test(api: Api, one: Replica, two: Replica) -> None:
        holder, other = (one, two) if one.control.lease.held else (two, one)
        assert not other.control.lease.held
        holder.control._stop.set()
        await other.until(lambda: other.control.lease.held)
        api.server.put("configmaps", {"metadata": {"namespace": SYSTEM, "name": BUNDLE}, "data": {ROOTS: "spoilt"}})
        root = api.authority().bundle_pem.decode()
        await other.until(lambda: api.server.get("configmaps", SYSTEM, BUNDLE)["data"][ROOTS] == root)

    with_two(test)


STEPS: dict[str, Callable[[roots.Authority], roots.Authority]] = {
    "trust": lambda found: roots.add_root(found, make.utc_now()),
    "switch": lambda found: roots.switch_signer(found, make.utc_now(), settle=timedelta(0)),
    "drop": lambda found: roots.drop_old(found, make.utc_now(), longest=timedelta(0)),
}


async def until_followed(now: roots.Authority, planes: tuple[Replica, ...], nodes: tuple[Node, ...]) -> None:
    await planes[0].until(
        lambda: (
            all(each.signs == now.signer.certificate for each in planes)
            and all(each.told == now.bundle_pem for each in nodes)
        )
    )


def test_a_whole_rotation_locks_out_no_agent_whose_mounted_file_stays_behind(tmp_path: Path) -> None:
    async def test(api: Api, one: Replica, two: Replica) -> None:
        cluster = ClusterAuthority(api.server.api(), SYSTEM, "cluster.local")
        node, other = (Node(tmp_path, api, name, one, two) for name in ("node-1", "node-2"))
        node.mount()
        other.mount()
        async with node, other:
            await node.has("shop/web")
            held = [await node.issue(WEB), await other.issue(DB)]
            for step in STEPS.values():
                now = await cluster.step(step)
                await until_followed(now, (one, two), (node, other))
                fresh = [await node.issue(WEB), await other.issue(DB)]
                assert {each.signed_by for each in fresh} == {now.signer.id}
                tls.meet(*fresh)
                if now.coming or now.old:
                    tls.meet(held[0], fresh[1])
                held = fresh
            serving, left = (one, two) if one.control.discovery.counts.connected else (two, one)
            await serving.kill()
            api.cluster.put(a_pod("api", "node-2", "10.1.0.3"))
            await node.has("shop/api")
            await left.until(lambda: left.control.discovery.counts.connected == 2)

    with_two(test)


def test_a_mounted_intermediate_signs_for_peers_that_trust_its_root_only_and_is_followed(tmp_path: Path) -> None:
    """Mounted as kubelet does: links by way of ..data, which is replaced whole."""
    mounted = tmp_path / "ca"
    for version, chain in (("..one", (LOW, MIDDLE)), ("..two", (OTHER,))):
        write(mounted / version, chain=chain, roots=(ROOT, OTHER))
    (mounted / "..data").symlink_to("..one")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mounted / name).symlink_to(f"..data/{name}")

    async def main() -> None:
        api = an_api()
        async with replicas(api, "one", "two", ca_files=mounted) as (one, two):
            await one.until(lambda: ("configmaps", SYSTEM, BUNDLE) in api.server.objects)
            assert ("secrets", SYSTEM, SECRET) not in api.server.objects
            node, other = Node(tmp_path, api, "node-1", one), Node(tmp_path, api, "node-2", two)
            node.roots.write_bytes(ROOT.pem)
            other.roots.write_bytes(ROOT.pem)
            web, db = await node.issue(WEB), await other.issue(DB)
            chain = [profile.short_id(each) for each in x509.load_pem_x509_certificates(web.chain_pem)]
            assert chain[1:] == [profile.short_id(each.certificate) for each in (LOW, MIDDLE)]
            tls.meet(replace(web, roots_pem=ROOT.pem), replace(db, roots_pem=ROOT.pem))
            (mounted / "..data_tmp").symlink_to("..two")
            (mounted / "..data_tmp").rename(mounted / "..data")
            await one.until(lambda: one.signs == two.signs == OTHER.certificate)
            node.roots.write_bytes(OTHER.pem)  # the replica's own certificate is the new one's, too
            renewed = await node.issue(WEB)
            assert renewed.signed_by == profile.short_id(OTHER.certificate)
            tls.meet(renewed, db)

    asyncio.run(main())


def test_a_mounted_ca_that_is_of_no_use_is_what_readiness_waits_for(tmp_path: Path) -> None:
    write(tmp_path, chain=(MIDDLE,), roots=(ROOT,), key=OTHER.key)

    async def main() -> None:
        async with replicas(an_api(), "one", ca_files=tmp_path, serving=False) as (one,):
            await one.until(lambda: "is not the key of" in str(one.control.not_ready))
            write(tmp_path, chain=(MIDDLE,), roots=(ROOT,))
            await one.until(lambda: bool(one.control.port) and not one.control.not_ready)

    asyncio.run(main())
