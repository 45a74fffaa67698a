"""Service names inside pods: the text of /etc/hosts and /etc/resolv.conf. Pure; a pod's files are written elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambient.lab import endpoints
from ambient.lab.cluster import Objects, vips

DOMAIN = "cluster.local"


def hosts(objects: Objects, pod: Mapping[str, Any]) -> str:
    """What one pod's /etc/hosts says: itself, and every service (its addresses, or its ready pods when headless)."""
    namespace = pod["metadata"]["namespace"]
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{ip} {pod['metadata']['name']}" for ip in endpoints.pod_ips(pod)]
    for key in sorted(objects):
        if key.kind != "Service":
            continue
        short = f"{key.name}.{key.namespace}"
        names = [f"{short}.svc.{DOMAIN}", f"{short}.svc", short]
        if key.namespace == namespace:
            names.append(key.name)
        addresses = vips(objects[key]) or tuple(
            ip for backend in endpoints.backing(objects, key) for ip in endpoints.pod_ips(backend)
        )
        lines += [f"{ip} {' '.join(names)}" for ip in addresses]
    return "\n".join(lines) + "\n"


def resolv_conf(namespace: str) -> str:
    """No name server: what /etc/hosts does not know fails at once (nobody listens there) and never leaves the pod."""
    search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"search {search}\noptions ndots:5 timeout:1 attempts:1\nnameserver 127.0.0.1\n"
