"""Objects as a busy cluster has them: of their usual size, most of which the mesh does not look at. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
NAMESPACES, NODES = 100, 200
WHEN = "2026-01-01T00:00:00Z"
PROBE = {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10}


def namespace_of(number: int) -> str:
    return f"ns-{number % NAMESPACES}"


def address(first: int, number: int) -> str:
    return f"10.{first + number // 65536}.{number // 256 % 256}.{number % 256}"


def meta(name: str, number: int, version: int = 1, **more: Any) -> Object:
    uid = f"00000000-0000-4000-8000-{number:012x}"
    return {"name": name, "uid": uid, "resourceVersion": str(version), "creationTimestamp": WHEN, **more}


def namespace(number: int) -> Object:
    return {"metadata": meta(f"ns-{number}", number, labels={"ambient.dev/mode": "enabled"})}


def node(number: int) -> Object:
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": f"z{number % 3}"}
    images = [{"names": [f"registry.example.com/image-{n}@sha256:{'a' * 64}"], "sizeBytes": n} for n in range(50)]
    status = {"addresses": [{"type": "InternalIP", "address": address(250, number)}], "images": images}
    return {"metadata": meta(f"node-{number}", number, labels=labels), "status": status}


def service(number: int, services: int) -> Object:
    spec = {
        "clusterIP": address(96, number),
        "clusterIPs": [address(96, number)],
        "selector": {"app": f"app-{number % services}"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }
    return {"metadata": meta(f"app-{number}", number, namespace=namespace_of(number)), "spec": spec}


def policy(number: int) -> Object:
    account = f"cluster.local/ns/{namespace_of(number + 1)}/sa/app-{number + 1}"
    rules = [{"from": [{"source": {"principals": [account]}}], "to": [{"operation": {"ports": ["8080"]}}]}]
    spec = {"selector": {"matchLabels": {"app": f"app-{number}"}}, "rules": rules}
    return {"metadata": meta(f"app-{number}", number, namespace=namespace_of(number), generation=1), "spec": spec}


def pod(number: int, services: int, version: int = 1, *, ready: bool = True) -> Object:
    app, ip = f"app-{number % services}", address(128, number)
    metadata = meta(
        f"{app}-7d4b9c5f6-{number:x}",
        number,
        version,
        namespace=namespace_of(number % services),
        labels={"app": app, "pod-template-hash": "7d4b9c5f6", "version": "v1", "team": "payments"},
        annotations={"ambient.dev/captured": "true", "checksum/config": "a" * 64},
        ownerReferences=[
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{app}-7d4b9c5f6", "controller": True}
        ],
        managedFields=[_managed("kube-controller-manager"), _managed("kubelet")],
    )
    return {"metadata": metadata, "spec": _spec(app, number), "status": _status(ip, ready)}


def _managed(who: str) -> Object:
    fields: Object = {f"f:{name}": {".": {}, "f:name": {}, "f:value": {}} for name in map(str, range(30))}
    return {"manager": who, "operation": "Update", "apiVersion": "v1", "time": WHEN, "fieldsV1": {"f:spec": fields}}


def _spec(app: str, number: int) -> Object:
    container = {
        "name": "app",
        "image": "registry.example.com/team/app:v1.2.3",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"VARIABLE_{n}", "value": "x" * 20} for n in range(20)],
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": f"volume-{n}", "mountPath": f"/var/run/volume-{n}"} for n in range(4)],
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
    }
    return {
        "nodeName": f"node-{number % NODES}",
        "serviceAccountName": app,
        "containers": [container],
        "volumes": [{"name": f"volume-{n}", "configMap": {"name": f"config-{n}"}} for n in range(4)],
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}] * 2,
    }


def _status(ip: str, ready: bool) -> Object:
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    running = {"state": {"running": {"startedAt": WHEN}}, "imageID": "sha256:" + "a" * 64, "ready": ready}
    return {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": str(ready or kind != "Ready"), "lastProbeTime": None, "lastTransitionTime": WHEN}
            for kind in kinds
        ],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "containerStatuses": [{"name": "app", "containerID": "containerd://" + "b" * 64, **running}],
    }
