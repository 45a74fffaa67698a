"""A gRPC client's connection: TLS, HTTP/2, the calls on it. Makes no second attempt and knows no message type.

On h2 and asyncio, as serving.py is. grpcio would take 16 MB more in an agent, and seven threads: too much on every node
for one stream and a call now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from h2.settings import SettingCodes

from ambient.xds.call import Call, RpcFailed, Status

STREAM_WINDOW = 1 << 20  # bytes the peer may be ahead of the taker of one call's messages
CONNECTION_WINDOW = 4 << 20
READ_BYTES = 64 << 10
PING = b"ambient "


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """A peer that fell silent without a FIN (its node is gone) is noticed within the sum of both."""

    idle_s: float = 3.0  # without a byte from the peer, then it is asked; istiod hangs up on less than 15
    answer_s: float = 2.0


@contextlib.asynccontextmanager
async def connect(
    host: str, port: int, tls: ssl.SSLContext, server_name: str, *, timeout_s: float, keepalive: Keepalive
) -> AsyncGenerator[Channel, None]:
    """A connection whose peer has proven to be `server_name`. Raises RpcFailed(UNAVAILABLE)."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=server_name)
    except (OSError, TimeoutError) as error:  # ssl's errors are OSErrors
        why = str(error) or f"no answer within {timeout_s:g} s"
        raise RpcFailed(Status.UNAVAILABLE, f"cannot connect to {host} port {port}: {why}") from error
    channel = Channel(reader, writer, server_name, keepalive)
    task = asyncio.create_task(channel.run(), name=f"xds: connection to {host}")
    try:
        yield channel
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        channel.end("closed here")
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        if isinstance(outcome, Exception):
            raise outcome  # a mistake of ours: what a peer can do wrong ends its calls instead


class Channel:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, keepalive: Keepalive
    ) -> None:
        """Not for callers: connect() is."""
        self._reader, self._writer = reader, writer
        self._authority = authority
        self._keepalive = keepalive
        self._calls: dict[int, Call] = {}
        self._over = ""  # why the connection is
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._http.initiate_connection()
        self._http.update_settings({SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW})
        self._http.increment_flow_control_window(CONNECTION_WINDOW - self._http.inbound_flow_control_window)
        self._flush()

    def call(self, path: str, metadata: Mapping[str, str]) -> Call:
        """Begin a call. path: "/package.Service/Method". Raises RpcFailed when the connection is over."""
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":path": path,
            ":authority": self._authority,
            "te": "trailers",
            "content-type": "application/grpc",
            **metadata,
        }
        if self._over:
            raise RpcFailed(Status.UNAVAILABLE, self._over)
        call = Call(self, self._http.get_next_available_stream_id())
        self._http.send_headers(call.number, list(headers.items()))
        self._calls[call.number] = call
        self._flush()
        return call

    async def unary(self, path: str, request: bytes, metadata: Mapping[str, str], *, timeout_s: float) -> bytes:
        """One message there, one back. Raises RpcFailed."""
        call = self.call(path, {**metadata, "grpc-timeout": f"{timeout_s * 1000:.0f}m"})
        try:
            async with asyncio.timeout(timeout_s):
                await call.send(request, last=True)
                response = await call.receive()
                rest = await call.receive() if response is not None else None
        except TimeoutError as error:
            raise RpcFailed(Status.DEADLINE_EXCEEDED, f"no answer to {path} within {timeout_s:g} s") from error
        finally:
            call.cancel()
        if response is None or rest is not None:
            raise RpcFailed(Status.INTERNAL, f"the answer to {path} is not one message")
        return response

    # What a call needs

    async def send(self, call: Call, data: bytes, last: bool) -> None:
        rest = memoryview(data)
        while rest:
            if call.ended:
                call.check()
                raise RpcFailed(Status.CANCELLED, "the server has ended the call already")
            room = min(self._http.local_flow_control_window(call.number), self._http.max_outbound_frame_size, len(rest))
            if room == 0:
                call.more_room.clear()
                await call.more_room.wait()
                continue
            self._http.send_data(call.number, bytes(rest[:room]), end_stream=last and room == len(rest))
            rest = rest[room:]
            call.said_last = last and not rest
            self._flush()
            with contextlib.suppress(OSError):  # run() will say so
                await self._writer.drain()

    def credit(self, call: Call, count: int) -> None:
        if count and not self._over:
            self._http.acknowledge_received_data(count, call.number)
            self._flush()

    def reset(self, call: Call) -> None:
        if self._calls.pop(call.number, None) and not self._over:
            with contextlib.suppress(h2.exceptions.StreamClosedError):  # the server has reset it, as came with this
                self._http.reset_stream(call.number, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    # The peer

    async def run(self) -> None:
        """Take in what comes until the connection is over, which ends every call."""
        try:
            while data := await self._read():
                for event in self._http.receive_data(data):
                    self._on(event)
                self._flush()
                if self._over:
                    return
            self.end("the server closed the connection")
        except (OSError, h2.exceptions.H2Error) as error:
            self.end(f"the connection is over: {error}")

    def end(self, why: str) -> None:
        """No call goes on, and none can be made."""
        self._over = self._over or why
        for call in self._calls.values():
            call.finish(Status.UNAVAILABLE, self._over)
        self._calls.clear()

    async def _read(self) -> bytes:
        """Raises OSError when the peer is silent and does not answer either."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._keepalive.idle_s):
                return await self._reader.read(READ_BYTES)
        self._http.ping(PING)
        self._flush()
        try:
            async with asyncio.timeout(self._keepalive.answer_s):
                return await self._reader.read(READ_BYTES)
        except TimeoutError as error:
            raise OSError(f"no answer to a ping within {self._keepalive.answer_s:g} s") from error

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._writer.write(data)

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                if call := self._calls.get(event.stream_id):
                    call.on_headers({_text(name): _text(value) for name, value in event.headers})
            case h2.events.DataReceived():
                if call := self._calls.get(event.stream_id):
                    call.on_data(event.data, event.flow_controlled_length)
                else:
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self._finish(event.stream_id)
            case h2.events.StreamReset():
                if call := self._calls.pop(event.stream_id, None):
                    call.finish(Status.UNAVAILABLE, f"the server reset the call (HTTP/2 error {event.error_code})")
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for call in self._calls.values():
                    call.more_room.set()
            case h2.events.ConnectionTerminated():  # h2 takes nothing more from it: what still runs there is lost
                self.end(f"the server sends its clients away (HTTP/2 error {event.error_code})")

    def _finish(self, number: int) -> None:
        """The server said its last; what we might still say it does not want to hear."""
        if call := self._calls.get(number):
            call.finish()
            if not call.said_last:
                self.reset(call)
            self._calls.pop(number, None)


def _text(header: bytes | str) -> str:
    return header if isinstance(header, str) else header.decode("latin-1")
