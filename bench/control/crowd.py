"""Simulated agents that ask for certificates at a given rate, each time over a new connection, as real ones do."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ambient.identity import svid
from ambient.model.mesh import Identity
from ambient.xds.ca_client import IMPERSONATED, SERVICE
from ambient.xds.dial import ControlPlane
from ambient.xds.proto import certificates_pb2 as pb
from ambient.xds.short import ShortCalls
from ambient.xds.trust import Trust

NAMES = ("ambient-control.ambient-system.svc",)
ACCOUNT = "ambient-system/ambient-agent"
METHOD = f"/{SERVICE}/CreateCertificate"
PREPARED = 200  # requests made beforehand: their keys are the agents' work, not the server's


def account_of(number: int) -> str:
    return f"account-{number}"


def node_of(pod: str) -> str:
    return f"node-{pod.rpartition('-')[2]}"


def pod_of(token: str) -> str:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["kubernetes.io"]["pod"]["name"])


def token_of(node: int) -> str:
    claims = {
        "aud": ["ambient-control"],
        "sub": f"system:serviceaccount:{ACCOUNT.replace('/', ':')}",
        "exp": time.time() + 3600,
        "kubernetes.io": {"pod": {"name": f"agent-{node}", "uid": f"uid-agent-{node}"}},
    }
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@dataclass(slots=True)
class Answers:
    seconds: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    late: float = 0.0  # how far behind its plan the last request was sent


class Crowd:
    """Agents of so many nodes."""

    def __init__(self, port: int, roots: Path, tokens: Path, pods: int, nodes: int) -> None:
        """tokens: an empty directory, for each agent's."""
        self._calls = []
        for node in range(nodes):
            token = tokens / f"node-{node}"
            token.write_text(token_of(node))
            control = ControlPlane(
                targets=(f"127.0.0.1:{port}",), server_name=NAMES[0], trust=Trust(roots), token=token, connect_s=10
            )
            self._calls.append(ShortCalls(control, random.Random(node)))
        rng = random.Random(1)
        chosen = [rng.randrange(pods) for _ in range(PREPARED)]
        self._requests: Iterator[tuple[int, bytes]] = itertools.cycle(
            [(number % nodes, _request(number)) for number in chosen]
        )

    async def warm(self) -> None:
        """Tokens are known, code is loaded."""
        answers = Answers()
        for _ in range(2 * len(self._calls)):
            await self._ask(answers)

    async def at_rate(self, per_second: float, seconds: float) -> Answers:
        """Whether answered or not: a server that falls behind shows it."""
        answers, loop = Answers(), asyncio.get_running_loop()
        rng, due, ends = random.Random(2), loop.time(), loop.time() + seconds
        async with asyncio.TaskGroup() as tasks:
            while due < ends:
                await asyncio.sleep(max(due - loop.time(), 0))
                answers.late = loop.time() - due
                tasks.create_task(self._ask(answers), name="crowd: request")
                due += rng.expovariate(per_second)
        return answers

    async def _ask(self, answers: Answers) -> None:
        node, request = next(self._requests)
        answers.under_way += 1
        answers.most_under_way = max(answers.most_under_way, answers.under_way)
        began = time.perf_counter()
        await self._calls[node](METHOD, request)
        answers.seconds.append(time.perf_counter() - began)
        answers.under_way -= 1


def _request(number: int) -> bytes:
    identity = Identity("cluster.local", "shop", account_of(number))
    request = pb.IstioCertificateRequest(csr=svid.request(identity)[1].decode(), validity_duration=86_400)
    request.metadata[IMPERSONATED] = str(identity)
    return request.SerializeToString()
