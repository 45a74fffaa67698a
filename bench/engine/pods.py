"""The cluster that is measured: a client on one node, a server with three programs on another. Texts only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engine.loads import HTTP, IPERF3, SOCKPERF

NAMESPACE = "bench"
CLIENT, SERVER = f"{NAMESPACE}/client", f"{NAMESPACE}/server"

# One worker and no log: the server is the same for all sides and should cost little.
NGINX = f"""
daemon off;
pid {{folder}}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{{{ worker_connections 4096; }}}}
http {{{{
  access_log off;
  keepalive_requests 1000000000;
  server {{{{
    listen {HTTP} backlog=4096;
    location / {{{{ return 200 "hello\\n"; }}}}
  }}}}
}}}}
"""


def nginx_conf(folder: Path) -> str:
    return NGINX.format(folder=folder)


def manifests(nginx: Path, *, enrolled: bool) -> list[dict[str, Any]]:
    """Both pods; enrolled ones speak mutual TLS only and obey a policy, as in earnest."""
    labels = {"ambient.dev/mode": "enabled"} if enrolled else {}
    server = [
        _container(SOCKPERF, "sockperf", "server", "--tcp", "-i", "0.0.0.0", "-p", str(SOCKPERF)),
        _container(IPERF3, "iperf3", "-s", "-p", str(IPERF3)),
        _container(HTTP, "nginx", "-c", str(nginx)),
    ]
    found = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}},
        _pod("client", "node1", [{"name": "client", "command": ["sleep", "infinity"]}]),
        _pod("server", "node2", server),
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
    principal = "cluster.local/ns/bench/sa/client"
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
                "rules": [{"from": [{"source": {"principals": [principal]}}]}],
            },
        },
    ]
