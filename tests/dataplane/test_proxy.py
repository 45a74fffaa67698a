"""The engine's questions answered: what goes back on the link, and what is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from ambient.dataplane import abi, wire
from ambient.dataplane.pods import listener_id, tunnel_id
from ambient.dataplane.questions import Outbound, Plaintext, label
from ambient.dataplane.wire import Message
from ambient.identity.ca import EmbeddedCA
from ambient.identity.svid import request
from ambient.model.mesh import (
    AuthorizationPolicy,
    Identity,
    IPAddress,
    MtlsMode,
    PeerAuthentication,
    Rule,
    address,
)
from ambient.observe.records import Flow
from tests.dataplane.proxied import OUTBOUND, PLAIN, TUNNEL, Setup
from tests.dataplane.worlds import (
    API_IP,
    CLIENT,
    CLIENT_IP,
    LEGACY_IP,
    WEB,
    WEB_IP,
    WEB_VIP,
    a_pod,
    a_service,
)

API = Identity("cluster.local", "shop", "api")


def test_an_outbound_connection_is_answered_with_remembered_choices() -> None:
    setup = Setup()
    answer = setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80)
    assert (answer.question, answer.verdict, answer.pod, answer.choices) == (9, abi.Verdict.CARRY, setup.cookie, 1)
    assert answer.flags == abi.AnswerFlag.REMEMBER
    assert setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80, question=10).answer == answer.answer


def test_a_choice_over_a_tunnel_dials_15008_and_asks_for_the_apps_port() -> None:
    setup = Setup()
    setup.proxy.on_message(
        setup.link,  # type: ignore[arg-type]
        Message(
            abi.Type.ACCEPTED,
            abi.Accepted(
                question=1,
                listener=listener_id(setup.cookie, OUTBOUND),
                from_=wire.addr(CLIENT_IP, 1),
                to=wire.addr(WEB_VIP, 80),
            ),
        ),
    )
    choice = abi.Choice.from_buffer_copy(setup.link.sent[0].tail)
    assert wire.read_addr(choice.dial) == (WEB_IP, 15008)
    assert wire.read_addr(choice.authority) == (WEB_IP, 8080)
    assert choice.flags == abi.ChoiceFlag.VIA_TUNNEL
    assert choice.target
    assert choice.context


def test_plaintext_to_a_strict_pod_is_refused_and_without_policy_shown_its_client() -> None:
    strict = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
    assert Setup(strict).accepted(PLAIN, LEGACY_IP, CLIENT_IP, 80).verdict == abi.Verdict.REFUSE
    answer = Setup().accepted(PLAIN, LEGACY_IP, CLIENT_IP, 80)
    assert answer.verdict == abi.Verdict.CARRY
    assert answer.flags & abi.AnswerFlag.SHOW_CLIENT


def test_a_pod_that_left_gets_a_refusal_never_silence() -> None:
    setup = Setup()
    setup.pods.remove(setup.cookie)
    assert setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80).verdict == abi.Verdict.REFUSE


@pytest.fixture(scope="module")
def web_certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    authority = EmbeddedCA.open(tmp_path_factory.mktemp("ca") / "ca", "cluster.local")
    identity = Identity("cluster.local", "shop", "web")
    _, csr = request(identity)
    issued = asyncio.run(authority.issue(csr, identity, timedelta(hours=1)))
    return x509.load_pem_x509_certificate(issued.chain_pem).public_bytes(Encoding.DER)


def tunnel(setup: Setup, remote: object, cert: bytes) -> abi.Answer:
    body = abi.TunnelQuestion(
        question=5,
        listener=listener_id(setup.cookie, TUNNEL),
        handshake_ns=2_000_000,
        from_=wire.addr(remote, 50000),  # type: ignore[arg-type]
        to=wire.addr(CLIENT_IP, 15008),
        cert_len=len(cert),
    )
    setup.say(abi.Type.TUNNEL, body, cert)
    return setup.link.answer()


def a_request(setup: Setup, peer: int, authority: str, forwarded: str = "") -> abi.Answer:
    headers = f":method\0CONNECT\0:authority\0{authority}\0forwarded\0{forwarded}\0".encode()
    body = abi.Request(
        question=6,
        listener=listener_id(setup.cookie, TUNNEL),
        peer=peer,
        from_=wire.addr(WEB_IP, 50000),
        to=wire.addr(CLIENT_IP, 15008),
        headers_len=len(headers),
    )
    setup.say(abi.Type.REQUEST, body, headers + b"\0\0")
    return setup.link.answer()


def test_a_tunnel_is_accepted_and_its_requests_are_judged_by_its_identity(web_certificate: bytes) -> None:
    setup = Setup()
    accepted = tunnel(setup, WEB_IP, web_certificate)
    assert accepted.verdict == abi.Verdict.ACCEPT
    assert setup.records.handshakes == [0.002]
    assert a_request(setup, accepted.answer, f"{CLIENT_IP}:80").verdict == abi.Verdict.CARRY


@pytest.mark.parametrize(
    ("authority", "status"),
    [("10.9.9.9:80", 400), ("web:80", 400), ("", 400), (f"{CLIENT_IP}:15008", 503)],
    ids=["another pod", "a name", "nothing", "a tunnel in a tunnel"],
)
def test_a_request_for_something_else_gets_its_status(web_certificate: bytes, authority: str, status: int) -> None:
    setup = Setup()
    answer = a_request(setup, tunnel(setup, WEB_IP, web_certificate).answer, authority)
    assert (answer.verdict, answer.status) == (abi.Verdict.REFUSE, status)


def test_a_request_of_a_peer_this_agent_never_accepted_is_refused() -> None:
    answer = a_request(Setup(), 12345, f"{CLIENT_IP}:80")
    assert (answer.verdict, answer.status) == (abi.Verdict.REFUSE, 401)


@pytest.mark.parametrize(
    ("cookie", "dialled", "expected", "verdict"),
    [
        (0, WEB_IP, WEB, abi.Verdict.ACCEPT),
        (0, WEB_IP, API, abi.Verdict.REFUSE),
        (0, API_IP, WEB, abi.Verdict.REFUSE),
        (1, WEB_IP, WEB, abi.Verdict.REFUSE),
    ],
    ids=["as planned", "for another identity", "at another address", "of another pod"],
)
def test_who_answers_must_be_whom_the_plan_named(
    web_certificate: bytes, cookie: int, dialled: IPAddress, expected: Identity, verdict: abi.Verdict
) -> None:
    """Not only who owns the address by now: it may be another's since the plan was made."""
    setup = Setup()
    body = abi.TunnelQuestion(
        question=5,
        target=tunnel_id(setup.cookie + cookie, dialled, expected),
        from_=wire.addr(CLIENT_IP, 50000),
        to=wire.addr(WEB_IP, 15008),
        cert_len=len(web_certificate),
    )
    setup.say(abi.Type.TUNNEL, body, web_certificate)
    assert setup.link.answer().verdict == verdict


def test_what_a_peer_forges_as_its_destination_makes_no_new_decision(web_certificate: bytes) -> None:
    """Nor a metric's label: only Services that lead to this port of the pod are believed."""
    setup = Setup(*(a_service(name, "client") for name in ("one", "two")))
    peer = tunnel(setup, WEB_IP, web_certificate).answer
    forged = [a_request(setup, peer, f"{CLIENT_IP}:8080", f"for=x;host=h{number}").answer for number in range(20)]
    assert len(set(forged)) == 1
    true = a_request(setup, peer, f"{CLIENT_IP}:8080", "for=x;host=two.shop.svc.cluster.local").answer
    assert true not in forged
    decisions = [setup.proxy.decisions.get(number) for number in (forged[0], true)]
    assert [decision.flow.service for decision in decisions if decision] == ["", "two.shop.svc.cluster.local"]


@pytest.mark.parametrize("cert", [b"", b"no certificate"], ids=["empty", "garbage"])
def test_a_tunnel_without_a_readable_certificate_is_refused_and_recorded_once(cert: bytes) -> None:
    setup = Setup()
    answer = tunnel(setup, WEB_IP, cert)
    assert answer.verdict == abi.Verdict.REFUSE
    listener = listener_id(setup.cookie, TUNNEL)
    setup.say(abi.Type.ENDED, abi.Conn(answer=answer.answer, listener=listener, reason=abi.Reason.REFUSED))
    ((flow, _),) = setup.records.all
    assert (flow.verdict, flow.reason, flow.reporter) == ("deny", "malformed_certificate", "destination")
    assert flow.rule


def test_an_ended_connection_is_recorded_with_what_was_decided() -> None:
    setup = Setup()
    answer = setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80)
    conn = abi.Conn(id=3, answer=answer.answer, sent=10, received=20, reason=abi.Reason.CLOSED, start_at=1, setup_ns=5)
    setup.say(abi.Type.ENDED, conn, b"")
    ((flow, ending),) = setup.records.all
    assert (flow.verdict, flow.source.principal) == ("allow", CLIENT.principal)
    assert setup.link.acknowledged == 1, "the engine keeps a record until it is told that it is written"
    assert (ending.connection, ending.sent, ending.received, ending.reason) == ("abc-3", 10, 20, "closed")


@pytest.mark.parametrize(
    ("port", "target", "path", "security"),
    [(15008, 7, "tunnel", "mutual_tls"), (8080, 0, "plaintext", "unknown"), (15008, 0, "plaintext", "unknown")],
    ids=["in a tunnel", "in the clear", "in the clear, to an app on the tunnels' port"],
)
def test_the_record_says_how_it_went_where_a_service_has_endpoints_inside_and_outside_the_mesh(
    port: int, target: int, path: str, security: str
) -> None:
    setup = Setup(replace(a_pod("api", API_IP, "node-2", enrolled=False), labels={"app": "web"}))
    answer = setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80)
    assert answer.choices == 2
    dialled = wire.addr(API_IP, port)
    setup.say(abi.Type.ENDED, abi.Conn(id=3, answer=answer.answer, dialled=dialled, target=target, setup_ns=5), b"")
    ((flow, _),) = setup.records.all
    assert (flow.path, flow.security) == (path, security)


def test_a_connection_nobody_answered_is_a_denial_that_says_so() -> None:
    setup = Setup()
    conn = abi.Conn(id=3, listener=listener_id(setup.cookie, OUTBOUND), reason=abi.Reason.NO_ANSWER)
    setup.say(abi.Type.ENDED, conn)
    ((flow, _),) = setup.records.all
    assert (flow.verdict, flow.reason, flow.reporter, flow.path) == ("deny", "no_answer", "source", "none")


def test_a_change_tells_the_engine_to_cut_what_would_be_refused_now() -> None:
    setup = Setup()
    answer = setup.accepted(PLAIN, LEGACY_IP, CLIENT_IP, 80)
    strict = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
    setup.proxy.world = setup.world.replace([strict], revision="2")
    setup.proxy.revise(setup.proxy.decisions.touched({"policy:shop"}))
    (message,) = setup.link.sent
    assert message.type is abi.Type.CUT
    assert isinstance(message.body, abi.Cut)
    assert message.body.answer == answer.answer


def test_what_ended_before_the_cut_is_recorded_as_it_was_allowed() -> None:
    setup = Setup()
    answer = setup.accepted(PLAIN, LEGACY_IP, CLIENT_IP, 80)
    strict = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
    setup.proxy.world = setup.world.replace([strict], revision="2")
    setup.proxy.revise(setup.proxy.decisions.touched({"policy:shop"}))
    for number, reason in enumerate((abi.Reason.CLOSED, abi.Reason.RESET_CLIENT, abi.Reason.CUT)):
        setup.say(abi.Type.ENDED, abi.Conn(id=number, answer=answer.answer, reason=reason, setup_ns=5))
    assert [(flow.verdict, flow.reason) for flow, _ in setup.records.all] == [
        ("allow", ""),
        ("allow", ""),
        ("deny", "strict_mtls"),
    ]


def test_inherited_connections_are_recorded_and_judged_again_by_the_next_agent() -> None:
    first = Setup()
    first.say(
        abi.Type.ACCEPTED,
        abi.Accepted(
            question=1,
            listener=listener_id(first.cookie, PLAIN),
            from_=wire.addr(LEGACY_IP, 1),
            to=wire.addr(CLIENT_IP, 80),
        ),
    )
    message = first.link.sent[0]
    assert isinstance(message.body, abi.Answer)
    at = message.body.choices * 72
    label = message.tail[at : at + message.body.label_len]
    strict = PeerAuthentication(namespace="shop", name="strict", mode=MtlsMode.STRICT)
    second = Setup(strict)
    row = Message(abi.Type.ROW_ANSWER, abi.AnswerRow(answer=777, label_len=len(label)), label)
    second.proxy.inherit([row, row])
    assert [m.type for m in second.link.sent] == [abi.Type.CUT]
    second.proxy.judge_all()
    assert [m.type for m in second.link.sent] == [abi.Type.CUT, abi.Type.FORGET], "what is cut is cut once"
    second.say(abi.Type.ENDED, abi.Conn(id=1, answer=777, reason=abi.Reason.CUT))
    ((flow, _),) = second.records.all
    assert (flow.verdict, flow.reason, flow.destination.workload) == ("deny", "strict_mtls", "client")
    second.say(abi.Type.ENDED, abi.Conn(id=2, answer=777, reason=abi.Reason.CLOSED))
    assert second.records.all[1][0].verdict == "allow", "it ended while no agent was there, before the policy"


def test_what_is_not_denied_is_repeated_until_all_is_judged() -> None:
    """Pods may take a while to be captured again, and until then nobody answers."""
    setup = Setup()
    question = Plaintext("shop/client", "uid-client", LEGACY_IP, CLIENT_IP, 80)
    text = label(question, Flow(reporter="destination"))
    setup.proxy.inherit([Message(abi.Type.ROW_ANSWER, abi.AnswerRow(answer=777, label_len=len(text)), text)])
    everybody = AuthorizationPolicy(namespace="shop", name="all", rules=(Rule(),))
    setup.proxy.world = setup.world.replace([everybody], revision="2")
    setup.proxy.touched({"policy:shop"})
    decision = setup.proxy.decisions.get(777)
    assert decision is not None
    assert decision.outcome is not None
    assert (decision.outcome.flow.verdict, "shop/all" in decision.outcome.flow.rule) == ("allow", True)
    assert setup.link.sent == [], "it is another rule by now, and still allowed"
    setup.proxy.judge_all()
    assert [m.body.id for m in setup.link.sent if isinstance(m.body, abi.Ref)] == [0]


@pytest.mark.parametrize("known", ["at once", "later"])
def test_what_would_be_dialled_plainly_and_now_in_a_tunnel_is_not_repeated(known: str) -> None:
    """Until pods are captured again nobody answers; better that than in the clear."""
    setup, ip = Setup(), address("10.1.0.9")
    with_new = setup.world.replace([a_pod("new", ip, "node-2")], revision="2")
    question = Outbound("shop/client", "uid-client", setup.cookie, ip, 80)
    text = label(question, Flow(reporter="source", path="plaintext"))
    if known == "at once":
        setup.proxy.world = with_new
    setup.proxy.inherit([Message(abi.Type.ROW_ANSWER, abi.AnswerRow(answer=777, label_len=len(text)), text)])
    if known == "later":
        assert setup.link.sent == []
        setup.proxy.world = with_new
        setup.proxy.touched({f"ip:{ip}", "wl:shop/new"})
    assert [m.body.id for m in setup.link.sent if isinstance(m.body, abi.Ref)] == [777]


def test_inherited_connections_whose_label_cannot_be_read_are_cut() -> None:
    setup = Setup()
    label = b'["from the future"]\n{}'
    row = Message(abi.Type.ROW_ANSWER, abi.AnswerRow(answer=777, label_len=len(label)), label)
    setup.proxy.inherit([row])
    assert [(m.type, m.body.answer) for m in setup.link.sent if isinstance(m.body, abi.Cut)] == [(abi.Type.CUT, 777)]
    setup.say(abi.Type.ENDED, abi.Conn(id=1, answer=777, reason=abi.Reason.CUT))
    assert [(flow.verdict, flow.reason) for flow, _ in setup.records.all] == [("deny", "unreadable")]


def test_a_failed_dial_touches_only_the_decisions_of_its_services() -> None:
    setup = Setup()
    through_vip = setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80)
    direct = setup.accepted(OUTBOUND, CLIENT_IP, WEB_IP, 9999)
    setup.say(abi.Type.DIAL_FAILED, abi.DialFailed(answer=direct.answer, dial=wire.addr(WEB_IP, 15008), reason=9))
    assert setup.link.sent == []
    assert setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80).answer == through_vip.answer
    assert setup.records.failures == ["dial"]


@pytest.mark.parametrize(
    ("reason", "blamed"),
    [
        *(
            (each, True)
            for each in (abi.Reason.DIAL, abi.Reason.HANDSHAKE, abi.Reason.PEER_REFUSED, abi.Reason.STRANGER)
        ),
        *((each, False) for each in (abi.Reason.NO_SOCKET, abi.Reason.NO_CONTEXT, abi.Reason.NO_ANSWER)),
        (abi.Reason.RESOURCES, False),
    ],
    ids=lambda value: value.name if isinstance(value, abi.Reason) else "",
)
def test_an_endpoint_is_not_set_aside_for_what_this_side_lacked(reason: abi.Reason, blamed: bool) -> None:
    another = a_pod("web-2", address("10.1.0.9"), "node-2", service_account="web")
    setup = Setup(replace(another, labels={"app": "web"}))
    setup.accepted(OUTBOUND, CLIENT_IP, WEB_VIP, 80)
    answer = setup.proxy.decisions.decide(Outbound("shop/client", "uid-client", setup.cookie, WEB_VIP, 80)).id

    async def fail() -> None:
        setup.say(abi.Type.DIAL_FAILED, abi.DialFailed(answer=answer, dial=wire.addr(WEB_IP, 15008), reason=reason))

    asyncio.run(fail())
    assert [message.type for message in setup.link.sent] == [abi.Type.FORGET] * blamed
    assert setup.records.failures == [reason.name.lower()], "counted it is"


def test_a_low_stash_is_filled() -> None:
    setup = Setup()
    setup.say(abi.Type.STASH_LOW, abi.PodRef(pod=setup.cookie, want=8))
    assert setup.link.sent[-1].type is abi.Type.STASH
