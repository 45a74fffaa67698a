"""What the agent tells an engine, seen from a worker's end of the socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from ambient.dataplane import abi, wire
from ambient.dataplane.engine import Engine


class Worker:
    """A worker that says HELLO, answers inventories and keeps what it is told, type and struct by raw bytes."""

    def __init__(self, run_dir: Path) -> None:
        self.told: list[tuple[abi.Type, bytes]] = []
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(str(run_dir / "engine.0.sock"))
        self._door.listen()
        self._door.setblocking(False)
        self._agent: socket.socket | None = None

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            agent, _ = await loop.sock_accept(self._door)
            self._agent = agent
            with agent:
                hello = abi.Hello(abi=abi.ABI, worker=0, workers=1, pid=1, start_at=7)
                await self._say(agent, wire.Message(abi.Type.HELLO, hello))
                while packet := await loop.sock_recv(agent, abi.PACKET_MAX):
                    for kind, body in messages(packet):
                        self.told.append((kind, body))
                        if kind is abi.Type.INVENTORY:
                            number = abi.Inventory.from_buffer_copy(body).id
                            await self._say(agent, wire.Message(abi.Type.ROW_END, abi.Ref(id=number)))

    async def _say(self, agent: socket.socket, message: wire.Message) -> None:
        (packet,) = wire.pack([message])
        await asyncio.get_running_loop().sock_sendall(agent, packet.data)

    async def hang_up(self, engine: Engine) -> None:
        """Return when the agent has noticed."""
        assert self._agent is not None
        self._agent.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(2):
            while engine.attached:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)

    def close(self) -> None:
        self._door.close()

    def of(self, kind: abi.Type) -> list[bytes]:
        return [body for each, body in self.told if each is kind]


def messages(packet: bytes) -> list[tuple[abi.Type, bytes]]:
    found = []
    while packet:
        head = abi.Head.from_buffer_copy(packet)
        found.append((abi.Type(head.type), packet[8 : head.size]))
        packet = packet[head.size :]
    return found


async def nothing(*_: object) -> list[socket.socket]:
    return []


@contextlib.asynccontextmanager
async def engine_with(worker: Worker, run_dir: Path) -> AsyncIterator[Engine]:
    serving = asyncio.create_task(worker.serve())
    engine = Engine(
        run_dir,
        abi.Settings(answer_ms=5),
        bring=nothing,
        stash=0,
        make_sockets=nothing,
        on_message=lambda *_: None,
        on_idle=lambda _: None,
        on_started=lambda: nothing(),  # type: ignore[arg-type, return-value]
    )
    try:
        yield engine
    finally:
        await worker.hang_up(engine)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def story(tmp_path: Path, tell: Callable[[Engine, Worker], Awaitable[None]]) -> None:
    async def main() -> None:
        with contextlib.closing(Worker(tmp_path)) as worker:
            async with engine_with(worker, tmp_path) as engine:
                await tell(engine, worker)

    asyncio.run(main())


def contexts(raw: bytes) -> set[int]:
    count = abi.Contexts.from_buffer_copy(raw).count
    return {int.from_bytes(raw[8 + 8 * i : 16 + 8 * i], "little") for i in range(count)}


def test_nothing_is_asked_for_before_the_agent_can_judge_nor_before_it_can_of_the_next_engine(tmp_path: Path) -> None:
    async def tell(engine: Engine, worker: Worker) -> None:
        await engine.attach()
        await engine.barrier()
        assert worker.of(abi.Type.SETTINGS) == []
        engine.listen()
        await engine.barrier()
        assert [abi.Settings.from_buffer_copy(raw).answer_ms for raw in worker.of(abi.Type.SETTINGS)] == [5]
        await worker.hang_up(engine)
        await engine.attach()
        await engine.barrier()
        assert len(worker.of(abi.Type.SETTINGS)) == 2

    story(tmp_path, tell)


def test_a_context_that_is_not_kept_is_forgotten_by_the_engine_and_not_told_to_the_next(tmp_path: Path) -> None:
    async def tell(engine: Engine, worker: Worker) -> None:
        await engine.attach()
        for number in (1, 2, 3):
            engine.set_context(number, 1 << 62, b"cert", b"key", b"roots")
        engine.keep_contexts(frozenset({2, 3}))
        engine.keep_contexts(frozenset({2, 3}))
        await engine.barrier()
        assert [contexts(raw) for raw in worker.of(abi.Type.CONTEXTS)] == [{2, 3}], "said once"
        worker.told.clear()
        await worker.hang_up(engine)
        await engine.attach()
        assert [abi.Context.from_buffer_copy(raw).context for raw in worker.of(abi.Type.CONTEXT)] == [2, 3]

    story(tmp_path, tell)
