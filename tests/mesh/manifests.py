"""The cluster of these tests: two nodes, an app on the second, clients on both, and one pod that is nobody's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
Manifest = dict[str, Any]
ENROLLED = {"ambient.dev/mode": "enabled"}
PORTS = (8080, 8081, 8082)


def meta(name: str, namespace: str = "", labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels or {}, **more}


def namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta(name, labels=labels)}


def enrolled(name: str, **labels: str) -> Manifest:
    body = namespace(name)
    body["metadata"]["labels"] = ENROLLED | {
        f"ambient.dev/{key.replace('_', '-')}": text for key, text in labels.items()
    }
    return body


def node(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta(name)}


def pod(
    name: str,
    on: str,
    *command: str,
    ns: str = "shop",
    account: str = "",
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    probe: Manifest | None = None,
    **spec: Any,
) -> Manifest:
    container: Manifest = {"name": "main", "command": list(command) or ["sleep", "infinity"]}
    if probe:
        container["readinessProbe"] = probe
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, ns, {"app": name, **(labels or {})}, annotations=annotations or {}),
        "spec": {"nodeName": on, "serviceAccountName": account or name, "containers": [container], **spec},
    }


def server(name: str, on: str, *options: str, ports: tuple[int, ...] = PORTS, **more: Any) -> Manifest:
    """A pod that runs programs/server.py, ready when its first port answers."""
    words = [sys.executable, str(PROGRAMS / "server.py"), *options, *map(str, ports)]
    probe = {"tcpSocket": {"port": ports[0]}, "periodSeconds": 5}
    return pod(name, on, *words, probe=probe, **more)


def service(name: str, ns: str = "shop", *, selector: str = "", target: int = PORTS[0], **spec: Any) -> Manifest:
    ports = [{"name": "main", "port": 80, "targetPort": target}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(name, ns),
        "spec": {"selector": {"app": selector or name}, "ipFamilyPolicy": "PreferDualStack", "ports": ports, **spec},
    }


def policy(
    name: str, action: str = "ALLOW", *, ns: str = "shop", app: str = "", rules: list[Any] | None = None
) -> Manifest:
    spec: Manifest = {"action": action}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if rules is not None:
        spec["rules"] = rules
    return _security("AuthorizationPolicy", name, ns, spec)


def mtls(
    mode: str, *, name: str = "default", ns: str = "shop", app: str = "", ports: dict[int, str] | None = None
) -> Manifest:
    spec: Manifest = {"mtls": {"mode": mode}}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if ports:
        spec["portLevelMtls"] = {str(port): {"mode": each} for port, each in ports.items()}
    return _security("PeerAuthentication", name, ns, spec)


def traffic(name: str, *, ns: str = "shop", app: str = "", **outbound: Any) -> Manifest:
    spec: Manifest = {"outbound": outbound}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    return {
        "apiVersion": "ambient.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": meta(name, ns),
        "spec": spec,
    }


def _security(kind: str, name: str, ns: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": meta(name, ns), "spec": spec}


def principal(account: str, ns: str = "shop") -> str:
    return f"cluster.local/ns/{ns}/sa/{account}"


def spiffe(account: str, ns: str = "shop") -> str:
    return f"spiffe://{principal(account, ns)}"


def shop(*more: Manifest, mode: bool = True) -> list[Manifest]:
    """`web` on node2 behind a Service; clients on both nodes; `outside` is not in the mesh. mode False: nobody is."""
    return [
        node("node1"),
        node("node2"),
        enrolled("shop") if mode else namespace("shop"),
        namespace("outside"),
        server("web", "node2"),
        service("web"),
        pod("client", "node1"),
        pod("near", "node2"),
        pod("stranger", "node1", ns="outside"),
        *more,
    ]
