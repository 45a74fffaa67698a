"""Whole replicas of the control plane in this process, the API server they share, and the nodes' agents that call.

Only the API server and kubelets are played: TLS, gRPC, the CA, the Lease and the agents' side are the real ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
from cryptography import x509

from ambient import config
from ambient.agent import upstream
from ambient.control.authority import BUNDLE, ROOTS, SECRET
from ambient.control.root import Control
from ambient.identity import ca_state, svid
from ambient.identity.issuer import Issued
from ambient.identity.roots import Authority
from ambient.identity.svid import Svid
from ambient.model.errors import SourceError
from ambient.model.mesh import Identity
from ambient.model.world import World
from ambient.sources import kubernetes
from ambient.sources.kubernetes.client import Client
from tests.identity import make
from tests.identity.test_tokens import a_token
from tests.sources.kubernetes.cluster import PATHS, Cluster, Object
from tests.sources.kubernetes.script import CONFIG

from .apiserver import ApiServer

SYSTEM = "ambient-system"
NAME = f"ambient-control.{SYSTEM}.svc"
SOON_S = 5.0  # nothing here takes longer, and an agent must not take longer to find another replica
EXTRA = "authentication.kubernetes.io/"


class Api(httpx2.AsyncBaseTransport):
    """What is listed and watched as a whole is the cluster's, everything else the server's."""

    def __init__(self) -> None:
        self.cluster, self.server = Cluster(), ApiServer()
        self.server.review = self._review
        self.reviews: dict[str, Object] = {}  # what a TokenReview says of a token
        self.tokens: dict[str, str] = {}  # by node: its agent's

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        whole = request.method == "GET" and request.url.path in PATHS
        return await (self.cluster if whole else self.server).handle_async_request(request)

    @property
    def offline(self) -> bool:
        return self.server.offline

    @offline.setter
    def offline(self, value: bool) -> None:
        self.server.offline, self.cluster.reachable = value, not value
        if value:
            self.cluster.cut_connections()
            self.server.end_watches()

    def authority(self) -> Authority:
        return ca_state.decode(base64.b64decode(self.server.get("secrets", SYSTEM, SECRET)["data"]["ca.json"]))

    def _review(self, spec: Object) -> Object:
        return self.reviews.get(spec["token"]) or {"authenticated": False, "error": "token is unknown"}


def a_pod(name: str, node: str, ip: str = "", namespace: str = "shop", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": {"nodeName": node, "serviceAccountName": name} | spec,
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def an_api() -> Api:
    api = Api()
    furnish(api)
    return api


def furnish(api: Api) -> None:
    """web on node-1 and db on node-2, both of the mesh, and an agent's pod on each node."""
    for name, labels in (("shop", {"ambient.dev/mode": "enabled"}), (SYSTEM, {})):
        api.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for node in ("node-1", "node-2"):
        agent = f"agent-of-{node}"
        api.cluster.put(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}},
            a_pod(agent, node, namespace=SYSTEM, hostNetwork=True, serviceAccountName="ambient-agent"),
        )
        said = {"pod-name": agent, "pod-uid": f"uid-{agent}", "node-name": node}
        user = {
            "username": f"system:serviceaccount:{SYSTEM}:ambient-agent",
            "extra": {EXTRA + key: [value] for key, value in said.items()},
        }
        token = api.tokens[node] = an_own_token(jti=node)
        api.reviews[token] = {"authenticated": True, "audiences": ["ambient-control"], "user": user}
    api.cluster.put(a_pod("web", "node-1", "10.1.0.1"), a_pod("db", "node-2", "10.1.0.2"))


def an_own_token(**claims: Any) -> str:
    """Good for an hour of real time."""
    return a_token(**{"exp": make.utc_now().timestamp() + 3600} | claims)


class Replica:
    def __init__(self, name: str, **settings: Any) -> None:
        settings = {"grpc_port": 0, "metrics_port": 0, "health_port": 0} | settings
        self.control = Control(config.ControlSettings(namespace=SYSTEM, replica=name, **settings))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.control.port}"

    @property
    def signs(self) -> x509.Certificate | None:
        signer = self.control.ca._signer
        return signer.certificate if signer else None

    def start(self) -> None:
        self._task = asyncio.create_task(self.control.run(), name=f"replica {self.control.settings.replica}")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """At once: nobody is told to leave, no Lease is released."""
        self.control.lease.held = False
        if self.control.port:
            await self.control._server.stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def replicas(api: Api, *names: str, serving: bool = True, **settings: Any) -> AsyncIterator[list[Replica]]:
    """serving: all of them are, once there is somebody to see it."""
    with mock.patch.object(kubernetes, "connect", side_effect=lambda _: Client(CONFIG, transport=api)):
        found = [Replica(name, **settings) for name in names]
    try:
        for replica in found:
            replica.start()
        if serving:
            await found[0].until(lambda: all(replica.control.port for replica in found))
        yield found
    finally:
        for replica in found:
            await replica.kill()


class Node:
    """A node's agent, as far as it talks to the control plane, and what kubelet mounts for it."""

    def __init__(self, folder: Path, api: Api, name: str, *replicas: Replica, token: str = "") -> None:
        self._api = api
        self.roots, self.token = folder / f"{name}.pem", folder / f"{name}.token"
        self.token.write_text(token or api.tokens[name])
        control = config.Upstream(
            targets=tuple(replica.target for replica in replicas),
            server_name=NAME,
            roots=self.roots,
            token=self.token,
        )
        self.upstream = upstream.of(config.AgentSettings(node=name, cgroup=Path("/"), control=control))
        self.items: list[World | SourceError] = []
        self._news = asyncio.Condition()

    def mount(self) -> None:
        """What kubelet does about a minute after the ConfigMap has changed."""
        self.roots.write_text(self._api.server.get("configmaps", SYSTEM, BUNDLE)["data"][ROOTS])

    @property
    def told(self) -> bytes:
        """The trusted roots by the control plane's newest word."""
        assert isinstance(self.upstream, upstream.ControlPlane)
        return self.upstream._trust.told

    async def issue(self, identity: Identity) -> Svid:
        key, request = svid.request(identity)
        issued: Issued = await self.upstream.issuer.issue(request, identity, make.HOUR)
        return svid.receive(identity, key, issued.chain_pem, issued.roots_pem, now=make.utc_now())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S), self._news:
            await self._news.wait_for(holds)

    async def has(self, pod: str) -> None:
        """Wait until the newest World holds a pod."""
        await self.until(lambda: any(pod in each.workloads for each in self.items[-1:] if isinstance(each, World)))

    async def __aenter__(self) -> Node:
        self._tasks = [asyncio.create_task(self._follow(), name="node: Worlds")]
        self._tasks += [asyncio.create_task(job, name=name) for name, job in self.upstream.jobs().items()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self.upstream.watch()) as items:
            async for item in items:
                async with self._news:
                    self.items.append(item)
                    self._news.notify_all()
