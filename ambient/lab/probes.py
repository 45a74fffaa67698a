"""Readiness probes as kubelet makes them: from the node, by its address. When to try is the container's business."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient.lab import linux, process
from ambient.lab.process import Entrance
from ambient.model import mesh

OUTPUT_MAX = 300  # characters of a failing probe's output that are worth showing


class ProbeFailed(Exception):
    """Why, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Kubernetes' fields and defaults, in seconds and attempts."""

    initial_delay: float
    period: float
    timeout: float
    successes: int
    failures: int

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Timing:
        return cls(
            initial_delay=probe.get("initialDelaySeconds", 0),
            period=probe.get("periodSeconds", 10),
            timeout=probe.get("timeoutSeconds", 1),
            successes=probe.get("successThreshold", 1),
            failures=probe.get("failureThreshold", 3),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prober:
    """Probes one container of one pod."""

    node_netns: Path
    pod_ip: mesh.IPAddress
    ports: Mapping[str, int]  # the container's named ports
    entrance: Entrance  # for exec probes
    env: Mapping[str, str]

    async def attempt(self, probe: Mapping[str, Any], patience: float) -> None:
        """Raises ProbeFailed."""
        try:
            async with asyncio.timeout(patience):
                if "tcpSocket" in probe:
                    (await self._dial(probe["tcpSocket"])).close()
                elif "httpGet" in probe:
                    await self._get(probe["httpGet"])
                else:
                    await self._run(probe["exec"]["command"])
        except TimeoutError as error:
            raise ProbeFailed(f"no answer within timeoutSeconds: {patience:g}") from error
        except OSError as error:
            raise ProbeFailed(str(error)) from error

    async def _dial(self, action: Mapping[str, Any]) -> socket.socket:
        port = action["port"] if isinstance(action["port"], int) else self.ports.get(action["port"])
        if port is None:
            raise ProbeFailed(f"the container has no port named {action['port']!r}")
        ip = mesh.address(action["host"]) if action.get("host") else self.pod_ip
        with linux.inside_netns(self.node_netns):
            sock = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (str(ip), port))
        except OSError as error:
            sock.close()
            raise ProbeFailed(f"connect to {ip} port {port}: {error.strerror}") from error
        except asyncio.CancelledError:
            sock.close()
            raise
        return sock

    async def _get(self, action: Mapping[str, Any]) -> None:
        tls = None
        if action.get("scheme", "HTTP") == "HTTPS":
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # as kubelet does
        sock = await self._dial(action)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname="" if tls else None)
        try:
            headers = {"Host": str(self.pod_ip), "User-Agent": "kube-probe/1.34", "Connection": "close"}
            headers |= {row["name"]: row["value"] for row in action.get("httpHeaders") or ()}
            lines = [
                f"GET {action.get('path') or '/'} HTTP/1.1",
                *(f"{name}: {value}" for name, value in headers.items()),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            status = (await reader.readline()).split(None, 2)
        finally:
            writer.close()
        if len(status) < 2 or not status[1].isdigit():
            raise ProbeFailed(f"GET {action.get('path') or '/'}: the answer is not HTTP")
        if not 200 <= int(status[1]) < 400:
            raise ProbeFailed(f"GET {action.get('path') or '/'}: status {status[1].decode()}")

    async def _run(self, command: list[str]) -> None:
        with tempfile.TemporaryFile() as output:
            try:
                child = process.start(command, enter=self.entrance, env=self.env, output=output)
            except process.CannotStart as error:
                raise ProbeFailed(str(error)) from error
            try:
                code = await process.ended(child)
            except asyncio.CancelledError:
                child.kill()
                child.wait()
                raise
            if code != 0:
                output.seek(0)
                said = output.read(OUTPUT_MAX).decode(errors="replace").strip()
                raise ProbeFailed(f"{command[0]}: {process.describe_exit(code)}: {said}")
