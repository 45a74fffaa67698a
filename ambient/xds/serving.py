"""A gRPC server's connections: TLS, HTTP/2, the calls on them. Knows no message type, and not who may call.

For a control plane that tells many agents little things, on h2 and asyncio: what comes is handled where it is read, and
what is said is written where it is said, without a task or a thread between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from h2.settings import SettingCodes

from ambient.xds import frames, secured
from ambient.xds.call import PREFIX_BYTES, Status
from ambient.xds.credentials import Renewed
from ambient.xds.room import Claim, Room
from ambient.xds.served import PEER, START, Aborted, ServerCall

# What clients can make a replica keep: HTTP/2's 64 KiB each, and these two.
CONNECTION_WINDOW = 256 << 10  # bytes a client may be ahead of whoever takes what it says, once somebody does ...
WINDOWS = 256 * CONNECTION_WINDOW  # ... for so many connections; those that come later are a little slower
LONG_BYTES = 128 << 20  # of all messages longer than served.AHEAD_BYTES; one that comes when it is full waits
PACE_S, PACE_BYTES = 10.0, 2_500_000  # a long message whose client sends less in so long is given up: others wait
CALLS = 100  # at once, of one connection: the least that HTTP/2 recommends
CREDIT_BYTES = 32 << 10  # said by a client past h2, then it may say as much again
RESETS = 1_000  # calls of one connection that its client gave up: after more it has to come again
REQUEST_BYTES = 64 << 20  # of one client: an agent that reconnects names the version of every resource it holds
HANDSHAKE_S = 10.0
BACKLOG = 1024  # all agents of a replica that died come at once
IDLE_S = 30.0  # without a byte from a client, then it is asked: its node may be gone
ANSWER_S = 10.0
PING = b"ambient "
log = logging.getLogger(__name__)

Who = TypeVar("Who")
Handler = Callable[[ServerCall], Awaitable[None]]  # the call ends well when it returns; raises Aborted
Handlers = Mapping[str, Handler]  # by path, "/package.Service/Method"


def unary(admit: Callable[[ServerCall], Awaitable[Who]], answer: Callable[[bytes, Who], Awaitable[bytes]]) -> Handler:
    """One message there, one back. Both raise Aborted; whom `admit` does not let in says nothing."""

    async def handle(call: ServerCall) -> None:
        who = await admit(call)
        request = await call.receive()
        if request is None or await call.receive() is not None:
            raise Aborted(Status.UNIMPLEMENTED, f"{call.path} takes one message")
        call.send(await answer(request, who))

    return handle


class Server:
    def __init__(self, handlers: Handlers) -> None:
        self.handlers = dict(handlers)
        self.connections: set[Connection] = set()
        self.windows, self.room = Room(WINDOWS), Room(LONG_BYTES)
        self._listening: asyncio.Server | None = None
        self._received = memoryview(bytearray(secured.READ_BYTES))

    async def start(self, listener: socket.socket, tls: Renewed) -> None:
        """Serve who connects to the listening socket, which is ours from now on."""

        def accepted() -> secured.Secured:
            tls.refresh()
            return secured.Secured(tls.context, Connection(self), self._received, handshake_s=HANDSHAKE_S)

        self._listening = await asyncio.get_running_loop().create_server(
            accepted,
            sock=listener,
            backlog=BACKLOG,
            start_serving=False,  # or a cancel in this very moment leaves nobody who could close it
        )
        await self._listening.start_serving()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Take no new connection and no new call; those under way are cut when their time is over."""
        if self._listening is not None:
            self._listening.close()
        waits = [connection.leave() for connection in [*self.connections]]
        if waits:
            await asyncio.wait([asyncio.ensure_future(each) for each in waits], timeout=grace_s)
        for connection in [*self.connections]:
            connection.abort()


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._calls: dict[int, ServerCall] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self._frames = frames.Cutter()
        self._resets = 0
        self._trusted = False  # somebody took what a call of it said
        self._window = 0  # what it has of the server's windows
        self._claims: set[Claim] = set()
        self._used = False  # a call has begun since the timer did
        self._full = False  # the transport takes no more for now
        self._leaving = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = True  # anything since the timer began
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        peername = transport.get_extra_info("peername")
        self.peer, self._address = str(peername), str(peername[0]) if peername else ""
        self._server.connections.add(self)
        if tls is None or tls.selected_alpn_protocol() != "h2":
            log.info("%s does not speak HTTP/2", self.peer)
            self.abort()
            return
        self._http.initiate_connection()
        self._http.update_settings(
            {SettingCodes.INITIAL_WINDOW_SIZE: CONNECTION_WINDOW, SettingCodes.MAX_CONCURRENT_STREAMS: CALLS}
        )
        self._flush()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._ask)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for frame in self._frames.feed(data):
                if not self._take(frame):
                    for event in self._http.receive_data(frame):
                        self._on(event)
        except (h2.exceptions.ProtocolError, frames.TooLong) as error:
            log.info("%s broke HTTP/2: %s", self.peer, error)
            if isinstance(error, frames.TooLong):  # of which h2 has not heard
                self._http.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            self._close()
            return
        self._flush()

    def pause_writing(self) -> None:
        """Who does not read is not listened to: whatever he says may want an answer, which would wait here."""
        self._full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self._say_all()

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.connections.discard(self)
        for call in [*self._calls.values()]:
            self._gone(call)
        self._server.windows.give(self._window)
        self._closed.set_result(None)

    # What a call needs

    def pump(self, call: ServerCall) -> None:
        self._say(call)
        self._flush()

    def wanted(self) -> None:
        if self._trusted:
            return
        self._trusted = True
        if self._server.windows.take(CONNECTION_WINDOW):
            self._window = CONNECTION_WINDOW
            self._http.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
            self._flush()

    def credit(self, call: ServerCall, count: int) -> None:
        if count and call.number in self._calls:
            self._http.acknowledge_received_data(count, call.number)
            self._flush()

    def claim(self, call: ServerCall, count: int) -> Claim | None:
        self._claims = {each for each in self._claims if not each.over}
        if sum(each.count for each in self._claims) + count > REQUEST_BYTES + PREFIX_BYTES:
            return None
        found = self._server.room.claim(count, lambda: self._granted(call, found))
        self._claims.add(found)
        if found.granted:
            self._pace(call, found, call.partial)
        return found

    def _granted(self, call: ServerCall, claim: Claim) -> None:
        self._pace(call, claim, call.partial)
        call.on_room()

    def _pace(self, call: ServerCall, claim: Claim, before: int) -> None:
        """Look again whether what is waited for comes: its room is others', too."""

        def look() -> None:
            if claim.over or not call.fills(claim):
                return
            if call.partial - before < PACE_BYTES:
                call.finish(Status.RESOURCE_EXHAUSTED, "a long message came too slowly, and others wait for its room")
            else:
                self._pace(call, claim, call.partial)

        asyncio.get_running_loop().call_later(PACE_S, look)

    # What the server says

    async def leave(self) -> None:
        """Return when no call is under way any more."""
        self._leaving = True  # GOAWAY comes last: after it h2 says nothing more, not even for calls under way
        self._close_if_done()
        await asyncio.shield(self._closed)

    def abort(self) -> None:
        self._transport.abort()

    def _say(self, call: ServerCall) -> None:
        """As much as the client and the transport take. h2 knows all that came, of which some is not handled yet."""
        if call.number not in self._calls:
            return
        try:
            self._send(call)
        except h2.exceptions.StreamClosedError:
            self._gone(call)

    def _send(self, call: ServerCall) -> None:
        if not call.started and (call.unsent or call.trailers):
            call.started = True
            self._http.send_headers(call.number, START)
        while call.unsent and not self._full:
            stream, data = self._http.streams.get(call.number), call.unsent[0]
            if stream is None or stream.closed:
                self._gone(call)
                return
            # Past h2, which keeps the account
            room = min(self._http.outbound_flow_control_window, stream.outbound_flow_control_window, len(data))
            if room <= 0:
                return
            payload = bytes(data[: min(room, frames.PAYLOAD_MAX)])
            self._http.outbound_flow_control_window -= len(payload)
            stream.outbound_flow_control_window -= len(payload)
            if len(payload) == len(data):
                call.unsent.popleft()
            else:
                call.unsent[0] = data[len(payload) :]
            self._transport.write(self._http.data_to_send() + frames.data(call.number, payload))
        if call.trailers and not call.unsent:
            self._http.send_headers(call.number, call.trailers, end_stream=True)
            with contextlib.suppress(h2.exceptions.StreamClosedError):  # the client has said its last, too
                self._http.reset_stream(call.number, h2.errors.ErrorCodes.NO_ERROR)  # nobody listens any more
            self._over(call)

    def _say_all(self) -> None:
        for call in [*self._calls.values()]:
            self._say(call)
        self._flush()

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._transport.write(data)

    def _close(self) -> None:
        """After what h2 has to say about it."""
        self._flush()
        self._transport.close()

    def _close_if_done(self) -> None:
        if self._leaving and not self._calls and not self._closed.done():
            self._http.close_connection()
            self._close()

    def _ask(self) -> None:
        """A client that said nothing for a while is asked whether it is there; one that was asked in vain is not. And
        one that has nothing to say may come again when it has."""
        if not self._calls and not self._used:
            self._leaving = True
            self._close_if_done()
            return
        self._used = False
        if not self._heard and self._asked:
            log.info("%s is silent", self.peer)
            self.abort()
            return
        self._asked = not self._heard
        if self._asked:
            self._http.ping(PING)
            self._flush()
        self._heard = False
        self._timer = asyncio.get_running_loop().call_later(ANSWER_S if self._asked else IDLE_S, self._ask)

    # The client

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                if call := self._calls.get(event.stream_id):
                    call.on_data(event.data, event.flow_controlled_length)
                else:
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.RequestReceived():
                self._begin(event.stream_id, {_text(name): _text(value) for name, value in event.headers})
            case h2.events.StreamEnded():
                if call := self._calls.get(event.stream_id):
                    call.on_half_closed()
            case h2.events.StreamReset():
                if call := self._calls.get(event.stream_id):
                    self._gone(call)
                self._resets += 1
                if self._resets > RESETS:
                    self._http.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    self._close()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._say_all()
            case h2.events.ConnectionTerminated():
                self._close()

    def _take(self, frame: bytes) -> bool:
        """What most frames are, past h2: one message that is taken as it comes. Whether it was that.

        h2 keeps no account of it: the client has less room than h2 thinks, by what was not credited here yet.
        """
        if (found := frames.plain_data(frame)) is None:
            return False
        number, payload = found
        if (call := self._calls.get(number)) is None or not call.on_message(payload):
            return False
        call.uncredited += len(payload)
        if number not in self._calls:  # it was the last
            self._credit_connection(call)
        elif call.uncredited >= CREDIT_BYTES:
            self._transport.write(frames.credit(number, call.uncredited))
            self._credit_connection(call)
        return True

    def _credit_connection(self, call: ServerCall) -> None:
        """For what the call heard past h2."""
        if call.uncredited:
            self._transport.write(frames.credit(0, call.uncredited))
            call.uncredited = 0

    def _begin(self, number: int, headers: Mapping[str, str]) -> None:
        path = headers.get(":path", "")
        said = {**headers, PEER: self._address}
        call = ServerCall(self, number, path, said, peer=self.peer, most=REQUEST_BYTES)
        self._calls[number] = call
        self._used = True
        handler = self._server.handlers.get(path)
        if not headers.get("content-type", "").startswith("application/grpc"):
            self._http.send_headers(number, [(":status", "415")], end_stream=True)
            self._over(call)
        elif self._leaving:
            call.finish(Status.UNAVAILABLE, "this replica is leaving: connect to another")
        elif handler is None:
            call.finish(Status.UNIMPLEMENTED, f"there is no {path} here")
        else:
            task = asyncio.create_task(_handled(handler, call), name=f"xds: {path} of {self.peer}")
            self._tasks[number] = task
            task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def _gone(self, call: ServerCall) -> None:
        """The client has left the call, and its handler leaves it, too."""
        self._over(call)
        if task := self._tasks.get(call.number):
            task.cancel()

    def _over(self, call: ServerCall) -> None:
        self._calls.pop(call.number, None)
        call.on_over()
        self._credit_connection(call)
        if count := call.drop():  # other calls need the room
            with contextlib.suppress(h2.exceptions.ProtocolError):  # the connection is over, too
                self._http.acknowledge_received_data(count, call.number)
        self._close_if_done()


async def _handled(handler: Handler, call: ServerCall) -> None:
    try:
        await handler(call)
        call.finish()
    except Aborted as error:
        call.finish(error.status, str(error))
    except Exception:
        log.exception("%s of %s failed", call.path, call.peer)
        call.finish(Status.INTERNAL, "the server made a mistake; its log has more")


def _text(header: bytes | str) -> str:
    return header if isinstance(header, str) else header.decode("latin-1")
