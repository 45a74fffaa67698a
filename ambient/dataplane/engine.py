"""One engine process as the agent sees it: an attachment to each of its workers. Knows no other; decides nothing."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path

from ambient.dataplane import abi, doors, process
from ambient.dataplane.link import Link, broadcast
from ambient.dataplane.wire import Message

HELLO_TIMEOUT = 5.0  # seconds; an engine greets at once


class Engine:
    """`serving`: it was given the listening sockets. `drained`: and was then told to finish what it carries."""

    def __init__(
        self,
        run_dir: Path,
        name: str,
        on_message: Callable[[Link, Message], None],
        on_news: Callable[[], None],
    ) -> None:
        """Not attached yet: see attach(). `on_news()`: the attachment ended, or it was told to leave."""
        self.name = name
        self.pid = 0
        self.start_at = 0
        self.build = ""
        self.version = 0  # of engine/abi.h, as it speaks it
        self.lost = ""  # why the attachment ended
        self.leaving = self.serving = self.drained = False
        self.links: list[Link] = []
        self._run_dir, self._on_message, self._on_news = run_dir, on_message, on_news
        self._hello: dict[Link, asyncio.Future[abi.Hello]] = {}

    @property
    def attached(self) -> bool:
        return bool(self.links) and all(link.is_open for link in self.links)

    async def attach(self) -> bool:
        """False: nobody listens there, it is dead. Raises EngineFailed, with what to do."""
        try:
            first = await self._greet(0)
            for worker in range(1, first.workers):
                await self._greet(worker)
        except (FileNotFoundError, ConnectionRefusedError):
            self.close()
            return False
        except ConnectionError as error:
            self.close()
            raise process.EngineFailed(f"the engine in {self._run_dir} hung up while greeting: {error}") from error
        except process.EngineFailed:
            self.close()
            raise
        self.pid, self.start_at, self.version = first.pid, first.start_at, first.abi
        return True

    def send(self, *messages: Message) -> None:
        """To every worker."""
        broadcast(self.links, *messages)

    def drain(self, timeout_s: int) -> None:
        """Another has its listening sockets: it carries what is open to its end, and exits."""
        self.serving, self.drained = False, True
        self.send(Message(abi.Type.DRAIN, abi.Drain(timeout_s=timeout_s)))

    async def hush(self) -> None:
        """Hear no more of it. When this returns what was heard is acknowledged."""
        for link in self.links:
            link.hush()
        await asyncio.sleep(0)  # for all that was due: see Link.seen()

    def close(self) -> None:
        for link in self.links:
            link.close()

    def status(self) -> dict[str, object]:
        state = "serving" if self.serving else "draining" if self.drained else "waiting"
        started = datetime.datetime.fromtimestamp(self.start_at / 1e9, datetime.UTC).isoformat(timespec="seconds")
        return {
            "pid": self.pid,
            "state": state,
            "leaving": self.leaving,
            "started": started,
            "build": self.build,
            "version": self.version,
        }

    async def _greet(self, worker: int) -> abi.Hello:
        link = Link(doors.path(self._run_dir, self.name, worker), self._heard, self._lost)
        self.links.append(link)
        self._hello[link] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await self._hello[link]
        except TimeoutError:
            pid = link.peer_pid()
            raise process.EngineFailed(
                f"engine {pid} in {self._run_dir} is there but says nothing for {HELLO_TIMEOUT:g} s; a second one "
                "beside it would leave its connections without policy. "
                f"Let it run again (kill -CONT {pid}) or end it (kill -9 {pid})"
            ) from None
        finally:
            del self._hello[link]
        oldest = hello.oldest or hello.abi
        if hello.abi < abi.ABI_OLDEST or oldest > abi.ABI:
            raise process.AnotherVersion(
                f"the engine {hello.pid} in {self._run_dir} speaks versions {oldest} to {hello.abi}, this agent "
                f"{abi.ABI_OLDEST} to {abi.ABI}: start an agent of its version, or end it (its connections end with it)"
            )
        link.version = min(hello.abi, abi.ABI)
        link.send(Message(abi.Type.SPEAKS, abi.Speaks(abi=abi.ABI, oldest=abi.ABI_OLDEST)))
        link.worker, link.engine = hello.worker, f"{hello.start_at:x}"
        return hello

    def _heard(self, link: Link, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message.body, abi.Hello):
                self._greeted(link, message.body, message.tail)
                continue
            if isinstance(message.body, abi.Conn):
                message.body.id |= link.worker << 56  # every worker counts from 1
            self._on_message(link, message)

    def _greeted(self, link: Link, hello: abi.Hello, tail: bytes) -> None:
        self.build = tail[: hello.build_len].decode(errors="replace")
        if hello.leaving and not self.leaving:
            self.leaving = True
            self._on_news()
        greeting = self._hello.get(link)
        if greeting is not None and not greeting.done():
            greeting.set_result(hello)

    def _lost(self, link: Link, reason: str) -> None:
        greeting = self._hello.get(link)
        if greeting is not None and not greeting.done():
            greeting.set_exception(ConnectionError(reason))
        self.lost = self.lost or reason
        self._on_news()
