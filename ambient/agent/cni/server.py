"""The CNI plugin's socket: one message with a descriptor in, one answer out. Judges nothing; the answerer is given.

Only root may ask. A message is bounded, and so are those who ask at once; a plugin that gets no answer goes by what the
agent wrote down (see namespaces.py), so nothing here has to be kept waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from ambient.agent.cni import request as requests
from ambient.agent.cni.request import Refusal, Request
from ambient.observe.bound import Bound

Answerer = Callable[[Request, int], Awaitable[None]]

MESSAGE_MAX = (1 << 20) + (1 << 16)  # bytes: the plugin takes 1 MiB of configuration, and its environment
CLIENTS_MAX = 256  # a node starts 110 pods at once at most, unless it is told otherwise
READ_S = 5.0  # for the message to be there: the plugin has it in hand when it connects
ANSWER_S = 20.0  # the plugin waits no longer
_MSG_CMSG_CLOEXEC = 0x40000000  # linux/socket.h; the socket module does not name it
log = logging.getLogger(__name__)


class CniServer:
    """Serves `path` from start() to close()."""

    def __init__(self, path: Path, answerer: Answerer, *, asker: int = 0) -> None:
        """`answerer(request, netns)`: returns to let the pod go on, raises Refusal to hold it; `netns` is a descriptor
        (-1: none came), closed when it returns. `asker`: the only user id that is answered.
        """
        self._path, self._answerer, self._asker = path, answerer, asker
        self._bound: Bound | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises OSError where a living agent is served already."""
        self._bound = Bound(self._path, CLIENTS_MAX)
        asyncio.get_running_loop().add_reader(self._bound.sock, self._accept, self._bound.sock)

    async def close(self) -> None:
        """Who waits for an answer gets none."""
        if self._bound is None:
            return
        asyncio.get_running_loop().remove_reader(self._bound.sock)
        self._bound.close()
        self._bound = None
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != self._asker or len(self._clients) >= CLIENTS_MAX:
            log.warning("not answering a CNI request of user %d, with %d being answered", user, len(self._clients))
            sock.close()
            return
        sock.setblocking(False)
        client = asyncio.get_running_loop().create_task(self._serve(sock), name="cni request")
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, sock: socket.socket) -> None:
        netns = -1
        try:
            async with asyncio.timeout(READ_S):
                message, netns = await _receive(sock)
            async with asyncio.timeout(ANSWER_S):
                answer = await self._answer(message, netns)
            async with asyncio.timeout(READ_S):
                await asyncio.get_running_loop().sock_sendall(sock, answer)
        except (OSError, TimeoutError) as error:  # it went away, or asks for too long: the plugin knows what to do then
            log.info("a CNI request was not answered: %s", error or "too late")
        finally:
            if netns >= 0:
                os.close(netns)
            sock.close()

    async def _answer(self, message: bytes, netns: int) -> bytes:
        version = "1.0.0"
        try:
            asked = requests.read(message)
            version = asked.version
            await self._answerer(asked, netns)
        except Refusal as refusal:
            log.warning("CNI: %s; %s", refusal, refusal.details)
            return requests.error(refusal, version)
        except Exception as error:  # ours: the pod is held, the agent goes on
            log.exception("a CNI request failed")
            why = f"ambient: the agent failed: {type(error).__name__}: {error}"
            return requests.error(Refusal(requests.TRY_AGAIN_LATER, why, "its log has the details"), version)
        return b"pass"


async def _receive(sock: socket.socket) -> tuple[bytes, int]:
    """The message, to its end, and the descriptor that came with it."""
    message = bytearray()
    netns = -1
    try:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(sock, 65536, 1, _MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await _readable(sock)
                continue
            for fd in fds:
                if netns >= 0:
                    os.close(netns)
                netns = fd
            message += data
            if not data:
                return bytes(message), netns
            if len(message) > MESSAGE_MAX:
                raise OSError(f"it is longer than {MESSAGE_MAX} bytes")
    except BaseException:
        if netns >= 0:
            os.close(netns)
        raise


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, ready)
    try:
        await ready
    finally:
        with contextlib.suppress(OSError):
            loop.remove_reader(sock)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
