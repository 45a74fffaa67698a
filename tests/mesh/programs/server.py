"""An application: listens on the ports it is given (both families) and does what a line asks for.

    who            -> {"peer": ..., "local": ..., "pod": ...}, as accept() shows it
    echo TEXT      -> TEXT
    download N     -> N bytes of the pattern
    anything else  -> the same line

What reaches it is told on stdout, a JSON object a line: each accepted connection, each line received. With `speak`
as first argument it greets before it is asked; with `quiet` it tells nothing (for load).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator

import pattern

quiet = False
speaks_first = False


def tell(**what: object) -> None:
    if not quiet:
        print(json.dumps(what), flush=True)


def show(address: tuple[str, int]) -> str:
    host = address[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


class App(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.peer = show(transport.get_extra_info("peername"))
        self.local = show(transport.get_extra_info("sockname"))
        self.line = b""
        self.download: Iterator[bytes] | None = None
        self.paused = False
        tell(event="accept", peer=self.peer, local=self.local)
        if speaks_first:
            transport.write(b"welcome\n")

    def data_received(self, data: bytes) -> None:
        *lines, self.line = (self.line + data).split(b"\n")
        for line in lines:
            tell(event="line", peer=self.peer, text=line[:200].decode(errors="replace"))
            verb, _, rest = line.partition(b" ")
            if verb == b"who":
                who = {"peer": self.peer, "local": self.local, "pod": os.uname().nodename}
                self.transport.write(json.dumps(who).encode() + b"\n")
            elif verb == b"download":
                self.download = pattern.blocks(int(rest))
                self.more()
            else:
                self.transport.write((rest if verb == b"echo" else line) + b"\n")

    def more(self) -> None:
        """Write until the transport says that it is enough for now."""
        while self.download is not None and not self.paused:
            block = next(self.download, None)
            if block is None:
                self.download = None
            else:
                self.transport.write(block)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.more()

    def connection_lost(self, error: Exception | None) -> None:
        self.download = None
        tell(event="end", peer=self.peer, error=type(error).__name__ if error else "")


async def main(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        sock = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        await loop.create_server(App, sock=sock)
    tell(event="ready")
    await asyncio.Event().wait()


options = [word for word in sys.argv[1:] if not word.isdigit()]
quiet, speaks_first = "quiet" in options, "speak" in options
asyncio.run(main([int(word) for word in sys.argv[1:] if word.isdigit()]))
