"""Objects for the API server in as few words as a test needs. Pods run the lane's own image."""

from __future__ import annotations

from typing import Any

import ambient

Manifest = dict[str, Any]
IMAGE = "localhost/ambient-test-app:dev"
AMBIENT_IMAGE = f"localhost/ambient:{ambient.__version__}"
SERVER = ("python3", "/programs/server.py")
PUPPET = ("python3", "/programs/puppet.py")
PROBED = ("python3", "/programs/probed.py")
ENROL, LEAVE = "ambient.dev/mode=enabled", "ambient.dev/mode-"  # of a namespace
STRICT: Manifest = {
    "apiVersion": "ambient.dev/v1alpha1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


def pod(
    name: str,
    on: str = "",
    *command: str,
    labels: dict[str, str] | None = None,
    container: Manifest | None = None,
    **spec: Any,
) -> Manifest:
    """A pod of one container; `on` is its node, chosen by the scheduler when empty."""
    main = {"name": "main", "image": IMAGE, "command": list(command) or ["sleep", "infinity"], **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
        "spec": {
            "containers": [main],
            "terminationGracePeriodSeconds": 0,  # the first process of a container does not die of a SIGTERM it ignores
            **({"nodeName": on} if on else {}),
            **spec,
        },
    }


def server(name: str, on: str, *, port: int = 8080, **more: Any) -> Manifest:
    """A pod that runs the mesh tests' server.py, ready when it listens."""
    ready = {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}}
    return pod(name, on, *SERVER, str(port), container=ready, **more)


def service(name: str, *, selects: str = "", headless: bool = False, port: int = 80, target: int = 8080) -> Manifest:
    """A dual-stack service of the pods labelled `app: selects` (its own name otherwise)."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": selects or name},
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": port, "targetPort": target}],
            **({"clusterIP": "None"} if headless else {}),
        },
    }
