"""The cluster's DNS: CoreDNS beside the API server, reached through a Service as usual. Pure: texts and objects."""

from __future__ import annotations

from hack.kube import layout
from hack.kube.config import JSON

USER = "system:coredns"
READY_PORT = 8181
READY_URL = f"http://{layout.CONTROL_PLANE_IPS[0]}:{READY_PORT}/ready"


def corefile() -> str:
    """No world outside: what is not the cluster's does not exist."""
    zones = f"{layout.DOMAIN} in-addr.arpa ip6.arpa"
    return f""".:53 {{
    bind {" ".join(layout.CONTROL_PLANE_IPS)}
    errors
    ready {layout.CONTROL_PLANE_IPS[0]}:{READY_PORT}
    kubernetes {zones} {{
        kubeconfig {layout.kubeconfig(USER)}
        pods insecure
        ttl 5
    }}
}}
"""


def objects() -> list[JSON]:
    return [*_rights(), *_service()]


def _rights() -> list[JSON]:
    """Those of the ClusterRole that comes with CoreDNS."""
    group = "rbac.authorization.k8s.io"
    reads = [
        {"apiGroups": [""], "resources": ["namespaces", "pods", "services"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    return [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": USER}, "rules": reads},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": USER},
            "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
        },
    ]


def _service() -> list[JSON]:
    """Without a selector, because its endpoint is no pod: the slices name the addresses."""
    ports = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "clusterIP": layout.DNS_SERVICE_IPS[0],
            "clusterIPs": list(layout.DNS_SERVICE_IPS),
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": ports,
        },
    }
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"kube-dns-{family.lower()}",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [ip], "conditions": {"ready": True}}],
            "ports": ports,
        }
        for family, ip in zip(("IPv4", "IPv6"), layout.CONTROL_PLANE_IPS, strict=True)
    ]
    return [service, *slices]
