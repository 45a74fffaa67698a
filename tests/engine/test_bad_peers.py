"""Bad peers on the tunnel port: refused with the right alert or status, recorded, of no consequence to good ones."""

from __future__ import annotations

import contextlib
import pathlib
import re
import ssl
from collections.abc import Callable

import hpack
import pytest
from hyperframe import frame

from ambient.dataplane import abi

from . import apps, attacks, h2peer, harness, pki, verdicts

pytestmark = pytest.mark.kernel


@pytest.fixture
def attacker(far: harness.Node, ca: pki.Authority) -> attacks.Attacker:
    return attacks.Attacker(far.tunnel(), ca.svid("shop", "web"), ca)


def still_serves(attacker: attacks.Attacker) -> None:
    """A good client is served as if nothing had happened."""
    with apps.App(apps.echo) as app, h2peer.dial(attacker.tunnel, attacker.leaf) as client:
        stream = client.ask(f"{app.address[0]}:{app.address[1]}")
        client.send(stream, b"hello", end=True)
        client.until(lambda: stream.ended)
        assert bytes(stream.data) == b"hello"


@pytest.mark.parametrize("kind", attacks.BEFORE_TLS)
def test_who_is_not_let_in_is_recorded_once_and_asked_about_never(
    far: harness.Node, attacker: attacks.Attacker, kind: str
) -> None:
    attacks.BEFORE_TLS[kind](attacker)
    (record,) = far.agent.await_ended()
    allowed = {abi.Reason.HANDSHAKE}
    if kind.startswith(("hanging", "resetting", "half")):
        allowed |= {abi.Reason.RESET_CLIENT, abi.Reason.CLOSED}
    assert record.reason in allowed
    assert record.source[0] == "127.0.0.1"
    assert record.to == attacker.tunnel
    assert far.agent.questions == []
    still_serves(attacker)
    assert len(far.agent.await_ended(2)) == 2


def alert(attacker: attacks.Attacker, context: ssl.SSLContext) -> str:
    """The TLS alert that a client gets, in OpenSSL's words."""
    with pytest.raises(ssl.SSLError) as failed, h2peer.tls(attacker.tunnel, context) as sock:
        sock.recv(1)
    return str(failed.value)


ALERTS: dict[str, tuple[Callable[[attacks.Attacker], ssl.SSLContext], str]] = {
    "foreign certificate": (
        lambda a: pki.Authority().svid(roots=[a.ca.root_pem]).client_context(),
        "alert (unknown ca|decrypt error|bad certificate)",
    ),
    "expired certificate": (
        lambda a: a.ca.svid(valid_from=-2 * pki.HOUR, valid_for=-pki.HOUR).client_context(),
        "alert certificate expired",
    ),
    "wrong ALPN": (lambda a: a.leaf.client_context(alpn=["http/1.1"]), "alert no application protocol"),
}


@pytest.mark.parametrize("kind", ALERTS)
def test_a_client_is_told_by_the_right_alert(attacker: attacks.Attacker, kind: str) -> None:
    make, expected = ALERTS[kind]
    assert re.search(expected, alert(attacker, make(attacker)))


def test_a_client_of_tls_1_2_is_told_so(attacker: attacks.Attacker) -> None:
    context = attacker.leaf.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "alert protocol version" in alert(attacker, context)


def test_only_aes_gcm_is_spoken(attacker: attacks.Attacker) -> None:
    with h2peer.tls(attacker.tunnel, attacker.leaf.client_context()) as sock:
        assert sock.version() == "TLSv1.3"
        assert sock.cipher()[0] in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")


@pytest.mark.parametrize("kind", attacks.BROKEN)
def test_who_breaks_http2_is_hung_up_on(far: harness.Node, attacker: attacks.Attacker, kind: str) -> None:
    attacks.BROKEN[kind](attacker)
    assert far.agent.asked(abi.Type.REQUEST) == []
    still_serves(attacker)
    reasons = [record.reason for record in far.agent.await_ended(2)]
    assert abi.Reason.PROTOCOL in reasons


REQUESTS: dict[str, tuple[tuple[str, str], ...]] = {
    "GET": ((":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "127.0.0.1:9")),
    "POST": ((":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "127.0.0.1:9")),
    "CONNECT without an authority": ((":method", "CONNECT"),),
    "CONNECT with a path": ((":method", "CONNECT"), (":authority", "127.0.0.1:9"), (":path", "/")),
    "CONNECT with an empty authority": ((":method", "CONNECT"), (":authority", "")),
    "a name in capitals": (*attacks.CONNECT, ("X-Upper", "no")),
    "a zero in a value": (*attacks.CONNECT, ("forwarded", 'for="1.2.3.4:5"\0evil')),
    "a connection header": (*attacks.CONNECT, ("connection", "keep-alive")),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_that_is_no_connect_is_refused_without_asking(
    far: harness.Node, attacker: attacks.Attacker, kind: str
) -> None:
    with h2peer.dial(attacker.tunnel, attacker.leaf) as client:
        client.inject = attacks.headers(*REQUESTS[kind])
        stream = client.streams.setdefault(1, h2peer.Stream(1))
        client.h2.ping(b"flush me")
        answer = raw_answer(client)
        assert stream.number in answer, "the stream was neither answered nor reset"
        status = answer[stream.number]
        assert status is None or 400 <= status < 500
    (record,) = far.agent.await_ended()
    assert record.reason in (abi.Reason.BAD_REQUEST, abi.Reason.PROTOCOL)
    assert far.agent.asked(abi.Type.REQUEST) == []
    still_serves(attacker)


def raw_answer(client: h2peer.Peer) -> dict[int, int | None]:
    """The first status (None: a reset) on any stream; below h2, which does not know of the stream we injected."""
    client.flush()
    decoder, buffered = hpack.Decoder(), b""
    while True:
        data = client.sock.recv(65536)
        assert data, "hung up on without an answer"
        buffered += data
        while len(buffered) >= 9:
            parsed, length = frame.Frame.parse_frame_header(memoryview(buffered[:9]))
            if len(buffered) < 9 + length:
                break
            parsed.parse_body(memoryview(buffered[9 : 9 + length]))
            buffered = buffered[9 + length :]
            if isinstance(parsed, frame.HeadersFrame):
                return {parsed.stream_id: int(dict(decoder.decode(parsed.data))[":status"])}
            if isinstance(parsed, frame.RstStreamFrame):
                return {parsed.stream_id: None}


@pytest.mark.parametrize("authority", ["nonsense", "127.0.0.1", "127.0.0.1:99999", "[::1", "web.shop:80", "a" * 200])
def test_what_an_authority_means_is_the_agents_to_judge(
    far: harness.Node, attacker: attacks.Attacker, authority: str
) -> None:
    far.agent.handlers[abi.Type.REQUEST] = lambda _: verdicts.Refuse(status=400)
    with h2peer.dial(attacker.tunnel, attacker.leaf) as client:
        assert client.ask(authority).status == 400
    for question in far.agent.asked(abi.Type.REQUEST):
        assert question.authority == authority
    assert len(far.agent.await_ended()) == 1


def huge_header() -> bytes:
    block = hpack.Encoder().encode([*attacks.CONNECT, ("x-huge", "h" * 200_000)], huffman=False)
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    frames = [frame.HeadersFrame(1, parts[0]), *(frame.ContinuationFrame(1, part) for part in parts[1:])]
    frames[-1].flags.add("END_HEADERS")
    return b"".join(one.serialize() for one in frames)


def hpack_bomb() -> bytes:
    """One entry of 4,000 bytes in the table, then 12,000 references to it: 16 KB that want to be 48 MB."""
    block = hpack.Encoder().encode([*attacks.CONNECT, ("x-bomb", "b" * 4000)], huffman=False)
    return frame.HeadersFrame(1, block + b"\xbe" * 12_000, flags=["END_HEADERS"]).serialize()


HUGE = {"one huge header": huge_header, "an HPACK bomb": hpack_bomb}


@pytest.mark.parametrize("kind", HUGE)
def test_oversized_headers_are_refused_and_not_kept(far: harness.Node, attacker: attacks.Attacker, kind: str) -> None:
    still_serves(attacker)
    before = far.engine.rss()
    for _ in range(5):
        with attacker.tunnelled() as sock:
            sock.settimeout(1.0)
            attacks.push(sock, HUGE[kind]())
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert sock.recv(65536)
    assert far.agent.asked(abi.Type.REQUEST)[1:] == []
    still_serves(attacker)
    if not harness.process.sanitized():
        assert far.engine.rss() - before < 4 << 20


def test_more_streams_than_granted_are_not_served(tmp_path: pathlib.Path, ca: pki.Authority) -> None:
    """RFC 9113 5.1.2 leaves the choice: refuse the streams, or hang up on a peer that ignores what it was told."""
    with harness.node(tmp_path / "far", ca.svid("shop", "db"), max_streams=10) as far, apps.App(apps.echo) as app:
        with h2peer.dial(far.tunnel(), ca.svid()) as client:
            client.until(lambda: client.h2.remote_settings.max_concurrent_streams == 10)
            client.h2.remote_settings[3] = 1000  # we do not care for what we were granted
            client.h2.remote_settings.acknowledge()
            try:
                streams = [client.open(f"{app.address[0]}:{app.address[1]}") for _ in range(20)]
                client.until(
                    lambda: client.over or all(stream.headers or stream.reset is not None for stream in streams)
                )
                assert client.over or [stream.reset for stream in streams].count(None) == 10
            except OSError:
                pass  # hung up on while it was still asking
        assert app.connected <= 10


@pytest.mark.parametrize("kind", ["no preface", "half a preface", "half a header block"])
def test_a_peer_that_dawdles_over_its_request_is_hung_up_on(
    tmp_path: pathlib.Path, ca: pki.Authority, kind: str
) -> None:
    half = frame.HeadersFrame(1, hpack.Encoder().encode(attacks.CONNECT)).serialize()
    said = {
        "no preface": b"",
        "half a preface": attacks.PREFACE[:10],
        "half a header block": attacks.PREFACE + frame.SettingsFrame(0).serialize() + half,
    }
    with harness.node(tmp_path / "far", ca.svid("shop", "db"), request_ms=500, handshake_ms=500) as far:
        with h2peer.tls(far.tunnel(), ca.svid().client_context()) as sock:
            sock.settimeout(5.0)
            attacks.push(sock, said[kind])
            attacks.until_hung_up(sock)
        assert far.agent.asked(abi.Type.REQUEST) == []
