"""A process that answers like an API server with a big cluster behind it, as fast as it can be read.

`python -m bench.control.apiserver PODS SERVICES POLICIES` prints its port, and "watched" when pods are. A line "N" on
its input changes N pods.
Everything is encoded before the first question, so that answering costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import click

from bench import command
from bench.control import objects

PAGE = 500
DEFINITION = {
    "metadata": {"name": "authorizationpolicies.security.istio.io", "resourceVersion": "1"},
    "spec": {"versions": [{"name": "v1", "served": True}]},
    "status": {"conditions": [{"type": "Established", "status": "True"}]},
}


class Cluster:
    def __init__(self, pods: int, services: int, policies: int) -> None:
        self._pods, self._services = pods, services
        self._version = 1
        self._watchers: list[asyncio.StreamWriter] = []
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self._pages = {
            "/api/v1/namespaces": pages(map(objects.namespace, range(objects.NAMESPACES))),
            "/api/v1/nodes": pages(map(objects.node, range(objects.NODES))),
            "/api/v1/services": pages(objects.service(n, services) for n in range(services)),
            "/api/v1/pods": pages(objects.pod(n, services) for n in range(pods)),
            "/apis/security.istio.io/v1/authorizationpolicies": pages(map(objects.policy, range(policies))),
            f"{definitions}?authorizationpolicies.security.istio.io": pages([DEFINITION]),
        }

    def change(self, count: int) -> None:
        """`count` other pods become not ready, or ready again."""
        events = []
        for _ in range(count):
            self._version += 1
            ready = self._version // self._pods % 2 == 1
            pod = objects.pod(self._version % self._pods, self._services, self._version, ready=ready)
            events.append(json.dumps({"type": "MODIFIED", "object": pod}).encode() + b"\n")
        for writer in self._watchers:
            writer.write(b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                target = urlsplit((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode())
                params = {name: values[0] for name, values in parse_qs(target.query).items()}
                if "watch" in params:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    if target.path == "/api/v1/pods":
                        self._watchers.append(writer)
                        print("watched", flush=True)
                    await reader.read()
                    return
                selected = params.get("fieldSelector", "")
                by_name = selected.removeprefix("metadata.name=") if selected.startswith("metadata") else ""
                found = self._pages.get(f"{target.path}?{by_name}" if by_name else target.path, pages([]))
                body = found[int(params.get("continue", "0"))]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


def pages(some: Iterable[objects.Object]) -> list[bytes]:
    items = list(some)
    cuts = range(0, max(1, len(items)), PAGE)
    return [
        json.dumps(
            {
                "metadata": {"resourceVersion": "1", "continue": str(n + 1) if n + 1 < len(cuts) else ""},
                "items": items[start : start + PAGE],
            }
        ).encode()
        for n, start in enumerate(cuts)
    ]


async def serve(pods: int, services: int, policies: int) -> None:
    cluster = Cluster(pods, services, policies)
    server = await asyncio.start_server(cluster.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        cluster.change(int(line))


@click.command(cls=command.Command)
@click.argument("pods", type=click.IntRange(1))
@click.argument("services", type=click.IntRange(0))
@click.argument("policies", type=click.IntRange(0))
def main(pods: int, services: int, policies: int) -> None:
    """Play the API server of a cluster with so many PODS, SERVICES and POLICIES."""
    asyncio.run(serve(pods, services, policies))


if __name__ == "__main__":
    main()
