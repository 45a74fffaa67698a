"""What hostile peers do to a tunnel port: each attack is a callable that takes the port and our certificates.

An attack returns when the victim has hung up or answered; it asserts nothing but that this happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
from collections.abc import Callable, Iterator

import hpack
from hyperframe import frame

from . import apps, h2peer, pki

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CONNECT = ((":method", "CONNECT"), (":authority", "127.0.0.1:9"))


@dataclasses.dataclass(frozen=True)
class Attacker:
    """tunnel: the victim's port. leaf: a certificate the victim accepts, as a compromised workload has one."""

    tunnel: apps.Address
    leaf: pki.Leaf
    ca: pki.Authority

    @contextlib.contextmanager
    def plain(self) -> Iterator[socket.socket]:
        with apps.connect(self.tunnel) as sock:
            yield sock

    @contextlib.contextmanager
    def tunnelled(self) -> Iterator[ssl.SSLSocket]:
        """TLS is done, preface and SETTINGS are said; what follows is the attack."""
        with h2peer.tls(self.tunnel, self.leaf.client_context()) as sock:
            sock.sendall(PREFACE + frame.SettingsFrame(0).serialize())
            yield sock


Attack = Callable[[Attacker], None]


def push(sock: socket.socket, data: bytes, times: int = 1) -> None:
    """Send until done or until the victim hangs up, which is the victim's right at any time."""
    try:
        for _ in range(times):
            sock.sendall(data)
    except (ConnectionError, ssl.SSLError):
        return


def until_hung_up(sock: socket.socket) -> bytes:
    """Everything the victim says until it ends the connection; TimeoutError if it does not."""
    said = bytearray()
    try:
        while data := sock.recv(65536):
            said += data
    except (ConnectionError, ssl.SSLError) as error:
        if isinstance(error, TimeoutError):
            raise
    return bytes(said)


def headers(*pairs: tuple[str, str], stream: int = 1, end: bool = False) -> bytes:
    block = hpack.Encoder().encode(pairs)
    flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
    return frame.HeadersFrame(stream, block, flags=flags).serialize()


# Before TLS is done


def garbage(attacker: Attacker) -> None:
    with attacker.plain() as sock:
        push(sock, bytes(range(256)) * 16)
        until_hung_up(sock)


def plaintext_http(attacker: Attacker) -> None:
    with attacker.plain() as sock:
        push(sock, b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
        until_hung_up(sock)


def plaintext_http2(attacker: Attacker) -> None:
    with attacker.plain() as sock:
        push(sock, PREFACE + frame.SettingsFrame(0).serialize() + headers(*CONNECT))
        until_hung_up(sock)


def hang_up_at_once(attacker: Attacker) -> None:
    with attacker.plain():
        pass


def reset_at_once(attacker: Attacker) -> None:
    apps.reset(apps.connect(attacker.tunnel))


def half_a_hello(attacker: Attacker) -> None:
    with attacker.plain() as sock:
        push(sock, b"\x16\x03\x01\x02\x00\x01\x00")


def oversized_record(attacker: Attacker) -> None:
    with attacker.plain() as sock:
        push(sock, b"\x16\x03\x01\xff\xff" + bytes(65535))
        until_hung_up(sock)


def _handshake(attacker: Attacker, context: ssl.SSLContext) -> None:
    """A handshake that must not succeed; in TLS 1.3 the client hears of its rejection only when it reads."""
    sock = apps.connect(attacker.tunnel)
    try:
        with context.wrap_socket(sock) as tls:
            push(tls, PREFACE + frame.SettingsFrame(0).serialize() + headers(*CONNECT))
            until_hung_up(tls)
    except (ssl.SSLError, ConnectionError):
        sock.close()


def no_certificate(attacker: Attacker) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _handshake(attacker, context)


def foreign_certificate(attacker: Attacker) -> None:
    foreign = pki.Authority().svid("shop", "web", roots=[attacker.ca.root_pem])
    _handshake(attacker, foreign.client_context())


def expired_certificate(attacker: Attacker) -> None:
    leaf = attacker.ca.svid(valid_from=-2 * pki.HOUR, valid_for=-pki.HOUR)
    _handshake(attacker, leaf.client_context())


def tls_1_2(attacker: Attacker) -> None:
    context = attacker.leaf.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _handshake(attacker, context)


def no_alpn(attacker: Attacker) -> None:
    _handshake(attacker, attacker.leaf.client_context(alpn=()))


def wrong_alpn(attacker: Attacker) -> None:
    _handshake(attacker, attacker.leaf.client_context(alpn=("http/1.1",)))


BEFORE_TLS: dict[str, Attack] = {
    "garbage": garbage,
    "plaintext HTTP": plaintext_http,
    "plaintext HTTP/2": plaintext_http2,
    "hanging up at once": hang_up_at_once,
    "resetting at once": reset_at_once,
    "half a hello": half_a_hello,
    "an oversized record": oversized_record,
    "no certificate": no_certificate,
    "a foreign certificate": foreign_certificate,
    "an expired certificate": expired_certificate,
    "TLS 1.2": tls_1_2,
    "no ALPN": no_alpn,
    "the wrong ALPN": wrong_alpn,
}
CHEAP = ("garbage", "plaintext HTTP", "plaintext HTTP/2", "hanging up at once", "resetting at once", "half a hello")


# With a good certificate


def http1_inside_tls(attacker: Attacker) -> None:
    with h2peer.tls(attacker.tunnel, attacker.leaf.client_context()) as sock:
        push(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
        until_hung_up(sock)


def frame_too_large(attacker: Attacker) -> None:
    with attacker.tunnelled() as sock:
        push(sock, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1 << 16))
        until_hung_up(sock)


def data_on_stream_zero(attacker: Attacker) -> None:
    with attacker.tunnelled() as sock:
        push(sock, b"\x00\x00\x04\x00\x00\x00\x00\x00\x00data")
        until_hung_up(sock)


def data_on_an_unopened_stream(attacker: Attacker) -> None:
    with attacker.tunnelled() as sock:
        push(sock, frame.DataFrame(7, b"data").serialize())
        until_hung_up(sock)


def broken_hpack(attacker: Attacker) -> None:
    with attacker.tunnelled() as sock:
        push(sock, frame.HeadersFrame(1, b"\xff" * 64, flags=["END_HEADERS"]).serialize())
        until_hung_up(sock)


def settings_flood(attacker: Attacker) -> bool:
    with attacker.tunnelled() as sock:
        return flood(sock, frame.SettingsFrame(0, {4: 65535}).serialize())


def empty_settings_flood(attacker: Attacker) -> bool:
    with attacker.tunnelled() as sock:
        return flood(sock, frame.SettingsFrame(0).serialize())


def ping_flood(attacker: Attacker) -> bool:
    with attacker.tunnelled() as sock:
        return flood(sock, frame.PingFrame(0, b"pingping").serialize())


def rapid_reset(attacker: Attacker) -> bool:
    """CVE-2023-44487: open and cancel, as fast as can be."""
    with attacker.tunnelled() as sock:
        streams = range(1, 2 * 20_000, 2)
        block = hpack.Encoder().encode(CONNECT)  # complete by itself: the first use of the table
        pairs = (
            frame.HeadersFrame(number, block, flags=["END_HEADERS"]).serialize()
            + frame.RstStreamFrame(number, 8).serialize()
            for number in streams
        )
        return push_blindly(sock, pairs)


def continuation_flood(attacker: Attacker) -> bool:
    """CVE-2024-27316: a header block that never ends."""
    with attacker.tunnelled() as sock:
        first = frame.HeadersFrame(1, hpack.Encoder().encode(CONNECT)).serialize()
        more = hpack.Encoder().encode([("x-filler", "f" * 8000)], huffman=False)
        push(sock, first)
        return flood(sock, frame.ContinuationFrame(1, more).serialize(), times=4000)


def empty_continuation_flood(attacker: Attacker) -> bool:
    with attacker.tunnelled() as sock:
        push(sock, frame.HeadersFrame(1, hpack.Encoder().encode(CONNECT)).serialize())
        return flood(sock, frame.ContinuationFrame(1, b"").serialize())


def empty_data_flood(attacker: Attacker) -> bool:
    """CVE-2019-9518: frames that carry nothing."""
    with attacker.tunnelled() as sock:
        push(sock, headers(*CONNECT))
        return flood(sock, frame.DataFrame(1, b"").serialize())


def priority_flood(attacker: Attacker) -> bool:
    with attacker.tunnelled() as sock:
        return flood(sock, frame.PriorityFrame(1, depends_on=0, stream_weight=1).serialize())


def window_overflow(attacker: Attacker) -> None:
    with attacker.tunnelled() as sock:
        push(sock, frame.WindowUpdateFrame(0, 0x7FFFFFFF).serialize() * 2)
        until_hung_up(sock)


def flood(sock: ssl.SSLSocket, one: bytes, times: int = 200_000) -> bool:
    """The same frame over and over; did the victim hang up?"""
    batch = max(1, 16_000 // len(one))
    return push_blindly(sock, (one * batch for _ in range(times // batch)))


def push_blindly(sock: ssl.SSLSocket, parts: Iterator[bytes]) -> bool:
    """Send without reading the answers, so that they pile up at the victim; did it hang up?"""
    sock.settimeout(2.0)
    try:
        for part in parts:
            sock.sendall(part)
        until_hung_up(sock)
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLError):
        return True
    return True


BROKEN: dict[str, Attack] = {
    "HTTP/1.1 inside TLS": http1_inside_tls,
    "a frame that is too large": frame_too_large,
    "DATA on stream zero": data_on_stream_zero,
    "DATA on a stream never opened": data_on_an_unopened_stream,
    "broken HPACK": broken_hpack,
    "a window overflow": window_overflow,
}
FLOODS: dict[str, Callable[[Attacker], bool]] = {  # each says whether the victim hung up
    "SETTINGS": settings_flood,
    "empty SETTINGS": empty_settings_flood,
    "PING": ping_flood,
    "rapid reset": rapid_reset,
    "CONTINUATION": continuation_flood,
    "empty CONTINUATION": empty_continuation_flood,
    "empty DATA": empty_data_flood,
    "PRIORITY": priority_flood,
}
