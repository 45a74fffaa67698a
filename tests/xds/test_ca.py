"""Certificates over the wire: a node gets what its pods need, nothing else, and is told why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.identity import profile, roots, svid
from ambient.identity.issuer import Issued, IssuingFailed
from ambient.model.mesh import Identity, Workload
from ambient.xds.ca_server import CertificateService
from ambient.xds.proto import certificates_pb2 as pb

from . import plane as planes
from .plane import Agent, Plane

WEB, DB = Identity("cluster.local", "shop", "web"), Identity("cluster.local", "shop", "db")
METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"


def with_agent(folder: Path, test: Callable[[Plane, Agent], Awaitable[None]], **settings: str) -> None:
    async def main() -> None:
        async with planes.with_agent(folder, **settings) as (plane, agent):
            await test(plane, agent)

    asyncio.run(main())


async def issue(agent: Agent, identity: Identity = WEB, lifetime: timedelta = planes.DAY) -> Issued:
    return await agent.issuer.issue(svid.request(identity)[1], identity, lifetime)


async def ask_raw(plane: Plane, request: bytes) -> bytes:
    """As another implementation would; raises AioRpcError."""
    async with plane.channel() as channel:
        stub: Any = channel.unary_unary(METHOD)
        answer: bytes = await stub(request, metadata=(("authorization", "Bearer token-1"),), timeout=5)
        return answer


async def ask(plane: Plane, request: pb.IstioCertificateRequest) -> list[str]:
    """As another implementation would; raises AioRpcError."""
    answer = await ask_raw(plane, request.SerializeToString())
    return list(pb.IstioCertificateResponse.FromString(answer).cert_chain)


def test_an_agent_gets_the_certificate_of_a_pod_of_its_node(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        key, csr = svid.request(WEB)
        issued = await agent.issuer.issue(csr, WEB, planes.DAY)
        own = svid.receive(WEB, key, issued.chain_pem, issued.roots_pem, now=datetime.now(UTC))
        assert own.signed_by == plane.authority.signer.id
        assert issued.roots_pem == plane.authority.bundle_pem
        assert plane.certificates.counts == {"issued": 1}

    with_agent(tmp_path, test)


def test_the_identity_of_a_pod_on_another_node_is_refused_logged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        with pytest.raises(IssuingFailed, match=r"PERMISSION_DENIED: .*agent-of-node-1 asked for .*/sa/db; no pod"):
            await issue(agent, DB)
        assert plane.certificates.counts == {"not_on_node": 1}

    with caplog.at_level(logging.WARNING, "ambient.xds.ca_server"):
        with_agent(tmp_path, test)
    assert "ambient-system/agent-of-node-1 asked for spiffe://cluster.local/ns/shop/sa/db" in caplog.text


def test_the_other_nodes_agent_gets_that_very_identity(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        await issue(agent, DB)
        assert plane.certificates.counts == {"issued": 1}

    with_agent(tmp_path, test, node="node-2")


def test_a_pod_that_left_takes_its_identity_along(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        await issue(agent)
        plane.world = plane.world.replace(removals=[(Workload, "shop/web")], revision="2")
        with pytest.raises(IssuingFailed, match="no pod of that identity"):
            await issue(agent)

    with_agent(tmp_path, test)


def test_one_of_two_pods_of_an_account_is_enough(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        plane.world = planes.a_world(planes.a_pod("db-0", "node-1", service_account="db"))
        await issue(agent, DB)

    with_agent(tmp_path, test)


@pytest.mark.parametrize(
    ("pod", "identity"),
    [
        ({"host_network": True}, Identity("cluster.local", "shop", "mon")),
        ({}, Identity("other.org", "shop", "mon")),
        ({"namespace": "bank"}, Identity("cluster.local", "shop", "mon")),
        ({"node": ""}, Identity("cluster.local", "shop", "mon")),
    ],
    ids=["a host-network pod", "another trust domain", "the account of another namespace", "not scheduled"],
)
def test_what_could_not_be_captured_here_has_no_identity_here(
    tmp_path: Path, pod: dict[str, object], identity: Identity
) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        node = str(pod.pop("node", "node-1"))
        plane.world = planes.a_world(planes.a_pod("mon", node, **pod))
        with pytest.raises(IssuingFailed, match="PERMISSION_DENIED"):
            await issue(agent, identity)

    with_agent(tmp_path, test)


def test_a_stranger_gets_nothing_and_is_told_which_token_was_refused(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        agent.token_file.write_text("stolen")
        with pytest.raises(IssuingFailed, match=r"UNAUTHENTICATED: the token is nobody's; our token is .*/token"):
            await issue(agent)
        assert not plane.lifetimes

    with_agent(tmp_path, test)


def test_who_cannot_be_told_may_try_again(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        plane.undecided = True
        with pytest.raises(IssuingFailed, match="UNAVAILABLE: nobody to ask"):
            await issue(agent)

    with_agent(tmp_path, test)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(3600, timedelta(hours=1)), (0, planes.DAY), (30 * 86400, planes.DAY), (1 << 62, planes.DAY)],
    ids=["less than the cap", "no wish", "more than the cap", "more than fits"],
)
def test_a_lifetime_is_as_wished_up_to_the_cap(tmp_path: Path, asked: int, given: timedelta) -> None:
    async def test(plane: Plane, _: Agent) -> None:
        await ask(plane, pb.IstioCertificateRequest(csr=svid.request(WEB)[1].decode(), validity_duration=asked))
        assert plane.lifetimes == [given]

    with_agent(tmp_path, test)


def test_without_metadata_the_name_in_the_request_counts(tmp_path: Path) -> None:
    async def test(plane: Plane, _: Agent) -> None:
        leaf, bundle = await ask(plane, pb.IstioCertificateRequest(csr=svid.request(WEB)[1].decode()))
        names = x509.load_pem_x509_certificate(leaf.encode()).extensions
        assert names.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        ) == [str(WEB)]
        assert bundle.count("BEGIN CERTIFICATE") == 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(plane, pb.IstioCertificateRequest(csr=svid.request(DB)[1].decode()))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    with_agent(tmp_path, test)


def _bytes_of_another_implementation(csr: str) -> bytes:
    """Fields 1, 3 and 4 by hand: two strings below 16 KiB, a varint, a Struct of one entry."""

    def text(field: int, value: bytes) -> bytes:
        return bytes([field << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value

    entry = text(1, b"ImpersonatedIdentity") + text(2, text(3, str(WEB).encode()))
    return text(1, csr.encode()) + bytes([3 << 3, 0x90, 0x1C]) + text(4, text(1, entry))


def test_the_bytes_on_the_wire_are_istios(tmp_path: Path) -> None:
    async def test(plane: Plane, _: Agent) -> None:
        answer = await ask_raw(plane, _bytes_of_another_implementation(svid.request(WEB)[1].decode()))
        assert plane.lifetimes == [timedelta(seconds=3600)]
        assert answer[:1] == b"\x0a"  # field 1, a string
        assert answer.index(b"-----BEGIN") == 3
        assert answer.endswith(plane.authority.bundle_pem)

    with_agent(tmp_path, test)


def _csr(*names: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(alternatives, True)
    return builder.sign(key or profile.new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"csr": ""}, "cannot be read"),
        ({"csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}, "cannot be read"),
        ({"csr": _csr(str(WEB)) + " " * 8192}, "more than 8192"),
        ({"csr": _csr(str(WEB), str(DB))}, "the one URI name"),
        ({"csr": _csr("spiffe://cluster.local/web")}, "is not spiffe://"),
        ({"csr": _csr(str(WEB), key=ec.generate_private_key(ec.SECP384R1()))}, "not ECDSA P-256"),
        ({"csr": _csr(str(WEB)), "metadata": {"ImpersonatedIdentity": str(DB)}}, "is spiffe://.*/sa/db, and"),
        ({"csr": _csr(str(WEB)), "metadata": {"ImpersonatedIdentity": 7}}, "is not spiffe://"),
        ({"csr": _csr(str(WEB)), "validity_duration": -1}, "a validity of -1 s"),
        ({"csr": _csr(str(WEB)), "validity_duration": 4}, "gives 0:00:05 and more"),
    ],
    ids=["nothing", "garbage", "long", "two names", "no ID", "curve", "contradiction", "number", "negative", "short"],
)
def test_wrong_requests_are_named_as_such(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    async def test(plane: Plane, _: Agent) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
            await ask(plane, pb.IstioCertificateRequest(**fields))  # type: ignore[arg-type]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert plane.certificates.counts == {"bad_request": 1}

    with_agent(tmp_path, test)


def test_a_ca_that_cannot_sign_says_why(tmp_path: Path) -> None:
    async def test(plane: Plane, agent: Agent) -> None:
        plane.broken = "Secret ambient-ca is gone"
        with pytest.raises(IssuingFailed, match="UNAVAILABLE: Secret ambient-ca is gone"):
            await issue(agent)
        assert plane.certificates.counts == {"cannot_sign": 1}

    with_agent(tmp_path, test)


@pytest.mark.parametrize("minutes", [1, -1, -60], ids=["a little ahead", "a little behind", "behind by an hour"])
def test_a_clock_that_differs_by_less_than_the_slack_does_no_harm(tmp_path: Path, minutes: int) -> None:
    """`minutes`: how far the control plane's clock is ahead of the agent's."""

    async def test(plane: Plane, agent: Agent) -> None:
        plane.authority = roots.found("cluster.local", datetime.now(UTC) - planes.DAY)
        plane.skew = timedelta(minutes=minutes)
        key, csr = svid.request(WEB)
        issued = await agent.issuer.issue(csr, WEB, planes.DAY)
        own = svid.receive(WEB, key, issued.chain_pem, issued.roots_pem, now=datetime.now(UTC))
        assert own.not_before <= datetime.now(UTC)

    with_agent(tmp_path, test)


@pytest.mark.parametrize(
    ("ahead", "says"), [(timedelta(minutes=5), "begins at"), (timedelta(days=-2), "ended at")], ids=["ahead", "behind"]
)
def test_a_clock_beyond_the_slack_is_an_error_that_names_the_time(tmp_path: Path, ahead: timedelta, says: str) -> None:
    """`ahead`: the control plane's clock, of the agent's."""

    async def test(plane: Plane, agent: Agent) -> None:
        plane.authority = roots.found("cluster.local", datetime.now(UTC) - timedelta(days=30))
        plane.skew = ahead
        key, csr = svid.request(WEB)
        issued = await agent.issuer.issue(csr, WEB, planes.DAY)
        with pytest.raises(svid.WrongCertificate, match=says):
            svid.receive(WEB, key, issued.chain_pem, issued.roots_pem, now=datetime.now(UTC))

    with_agent(tmp_path, test)


def test_the_cap_is_never_beyond_what_a_rotation_waits_for() -> None:
    service = CertificateService(
        authenticate=Plane().authenticate,
        world=planes.a_world,
        sign=lambda _request, _lifetime: Issued(b"", b""),
        longest=timedelta(days=365),
    )
    assert service._lifetime(365 * 86400) == profile.MAX_LIFETIME
