"""An engine of one worker that says HELLO, answers inventories and keeps what it is told. Its pid is a child's."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

from ambient.dataplane import abi, wire

ADDED = b"\xff" * 24  # fields of a later version


class FakeEngine:
    """`told`: type and struct by raw bytes, as it came; `heard` is set at each. `mute`: it accepts and says nothing.

    Of version 3 it frames as such engines do, and of a later one than ours its structs have more fields.
    """

    def __init__(
        self,
        run_dir: Path,
        number: int,
        *,
        build: str = "1",
        version: int = abi.ABI,
        oldest: int = abi.ABI_OLDEST,
        mute: bool = False,
    ):
        self.name = f"engine-{number:016x}"
        self.told: list[tuple[abi.Type, bytes]] = []
        self.heard = asyncio.Event()
        self.deaf = False  # it lists nothing when it is asked
        self._number, self._build, self._version, self._oldest, self._mute = number, build, version, oldest, mute
        self._process = subprocess.Popen(["sleep", "60"])
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._path = run_dir / f"{self.name}.0.sock"
        self._door.bind(str(self._path))
        self._door.listen()
        self._door.setblocking(False)
        self._agent: socket.socket | None = None
        self._serving = asyncio.create_task(self._serve())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            agent, _ = await loop.sock_accept(self._door)
            with agent:
                self._agent = agent
                await self._listen(agent)

    async def _listen(self, agent: socket.socket) -> None:
        if not self._mute:
            await self.say_hello()
        while packet := await asyncio.get_running_loop().sock_recv(agent, abi.PACKET_MAX):
            for kind, body in messages(packet):
                self.told.append((kind, body))
                if kind is abi.Type.INVENTORY and not self.deaf:
                    number = abi.Inventory.from_buffer_copy(body).id
                    await self.say(wire.Message(abi.Type.ROW_END, abi.Ref(id=number)))
            self.heard.set()

    async def say_hello(self, *, leaving: bool = False) -> None:
        build = self._build.encode()
        hello = abi.Hello(
            abi=self._version, oldest=self._oldest, worker=0, workers=1, pid=self.pid, start_at=self._number
        )
        hello.leaving, hello.build_len = leaving, len(build)
        await self.say(wire.Message(abi.Type.HELLO, hello, build))

    async def say(self, message: wire.Message) -> None:
        (packet,) = wire.pack([message], self._version)
        data = bytes(packet.data)
        if self._version > abi.ABI:
            head = abi.Head.from_buffer_copy(data)
            at = 8 + head.body
            longer = abi.Head(type=head.type, size=head.size + len(ADDED), body=head.body + len(ADDED))
            data = bytes(longer) + data[8:at] + ADDED + data[at:]
        await self.say_raw(data)

    async def say_raw(self, packet: bytes) -> None:
        assert self._agent is not None
        await asyncio.get_running_loop().sock_sendall(self._agent, packet)

    async def until(self, kind: abi.Type, count: int = 1) -> list[bytes]:
        """Return when it was told so many of a kind."""
        async with asyncio.timeout(30):
            while len(self.of(kind)) < count:
                self.heard.clear()
                await self.heard.wait()
        return self.of(kind)

    def of(self, kind: abi.Type) -> list[bytes]:
        return [body for each, body in self.told if each is kind]

    def detach(self) -> None:
        """It lives, but the attachment is over."""
        if self._agent is not None:
            self._agent.shutdown(socket.SHUT_RDWR)

    async def die(self) -> None:
        self._process.kill()
        self._process.wait()
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._door.close()


def messages(packet: bytes) -> list[tuple[abi.Type, bytes]]:
    found = []
    while packet:
        head = abi.Head.from_buffer_copy(packet)
        found.append((abi.Type(head.type), packet[8 : head.size]))
        packet = packet[head.size :]
    return found
