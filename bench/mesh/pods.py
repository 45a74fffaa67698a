"""The cluster that is measured: a client on one node, a server with three programs on another, and the server's
neighbour, a client on its node. Texts only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.mesh.loads import HTTP, IPERF3, SOCKPERF

NAMESPACE = "bench"
CLIENT, SERVER, NEIGHBOUR = (f"{NAMESPACE}/{name}" for name in ("client", "server", "neighbour"))
CLIENT_NODE, SERVER_NODE = "node1", "node2"
IDLER = {"name": "client", "command": ["sleep", "infinity"]}
NGINX_CONF, FEED = "nginx.conf", "sockperf.feed"

# One worker and no log: the server is the same for all modes and should cost little. Idle connections are kept.
NGINX = f"""
daemon off;
pid {{folder}}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{{{ worker_connections 32768; }}}}
http {{{{
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  server {{{{
    listen {HTTP} backlog=4096;
    location / {{{{ return 200 "hello\\n"; }}}}
  }}}}
}}}}
"""


# With one address sockperf takes one connection at a time; with two it waits for all by epoll.
SOCKPERF_FEED = f"T:0.0.0.0:{SOCKPERF}\nT:127.0.0.1:{SOCKPERF + 1}\n"


def write_files(folder: Path) -> None:
    """What the server's programs are configured by; nginx keeps its pid there, too."""
    (folder / NGINX_CONF).write_text(NGINX.format(folder=folder))
    (folder / FEED).write_text(SOCKPERF_FEED)


def manifests(folder: Path, *, enrolled: bool) -> list[dict[str, Any]]:
    """The pods; enrolled ones speak mutual TLS only and obey a policy, as in earnest. `folder`: see write_files()."""
    labels = {"ambient.dev/mode": "enabled"} if enrolled else {}
    server = [
        _container(SOCKPERF, "sockperf", "server", "-f", str(folder / FEED), "-F", "e"),
        _container(IPERF3, "iperf3", "-s", "-p", str(IPERF3)),
        _container(HTTP, "nginx", "-c", str(folder / NGINX_CONF)),
    ]
    found = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": CLIENT_NODE}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": SERVER_NODE}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
        _pod("client", CLIENT_NODE, [IDLER]),
        _pod("neighbour", SERVER_NODE, [IDLER]),
        _pod("server", SERVER_NODE, server),
    ]
    return found + (_policies() if enrolled else [])


def _pod(name: str, node: str, containers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {"nodeName": node, "serviceAccountName": name, "containers": containers},
    }


def _container(port: int, *command: str) -> dict[str, Any]:
    """Ready when it listens; asked without a connection (iperf3 serves one at a time) and, once true, not again."""
    listens = f"ss -Hltn sport = :{port} | grep -q ."
    probe = {"exec": {"command": ["sh", "-c", listens]}, "periodSeconds": 3600}
    return {"name": command[0], "command": list(command), "readinessProbe": probe}


def _policies() -> list[dict[str, Any]]:
    """STRICT, so that a connection past the tunnel fails the run; an ALLOW, so that there is something to decide."""
    principals = [f"cluster.local/ns/{NAMESPACE}/sa/{name}" for name in ("client", "neighbour")]
    return [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": NAMESPACE},
            "spec": {"mtls": {"mode": "STRICT"}},
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": {"app": "server"}},
                "action": "ALLOW",
                "rules": [{"from": [{"source": {"principals": principals}}]}],
            },
        },
    ]
