"""What the components are told: their configuration files and options. Pure: texts and words, nothing is written here.

Whatever differs from what a distribution of Kubernetes sets says why.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from hack.kube import layout
from hack.kube.layout import Node
from hack.kube.pki import Pair

ETCD = "http://127.0.0.1:2379"
CONTAINERD = "/run/containerd/containerd.sock"  # where everybody looks for it
PAUSE_IMAGE = "localhost/pause:1"
KUBELET_DIR = Path("/var/lib/kubelet")  # these are paths inside a node
KUBELET_CONFIG = KUBELET_DIR / "config.json"
KUBELET_KUBECONFIG = KUBELET_DIR / "kubeconfig"
PROXY_DIR = Path("/var/lib/kube-proxy")
CONTAINERD_CONFIG = Path("/etc/containerd/config.toml")
CNI_CONFIG = Path("/etc/cni/net.d/10-pods.conflist")
WITHOUT_DAD = "without-dad"  # a plugin of our own: without-dad.sh
CNI_PLUGINS = ("host-local", "loopback", "portmap", "ptp")

JSON = dict[str, Any]


def kubeconfig(authority: bytes, user: Pair) -> str:
    """Everything is inside: it may be copied anywhere."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": layout.NAME,
        "contexts": [{"name": layout.NAME, "context": {"cluster": layout.NAME, "user": layout.NAME}}],
        "clusters": [
            {"name": layout.NAME, "cluster": {"server": layout.API, "certificate-authority-data": _base64(authority)}}
        ],
        "users": [
            {
                "name": layout.NAME,
                "user": {"client-certificate-data": _base64(user.certificate), "client-key-data": _base64(user.key)},
            }
        ],
    }
    return json.dumps(config, indent=1)


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def etcd() -> list[str]:
    return [
        "etcd",
        f"--data-dir={layout.STATE}/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # no cluster of this kind outlives the machine
    ]


def apiserver() -> list[str]:
    return [
        f"--etcd-servers={ETCD}",
        f"--advertise-address={layout.CONTROL_PLANE_IPS[0]}",
        f"--secure-port={layout.API_PORT}",
        f"--tls-cert-file={layout.PKI}/apiserver.crt",
        f"--tls-private-key-file={layout.PKI}/apiserver.key",
        f"--client-ca-file={layout.PKI}/ca.crt",
        f"--kubelet-certificate-authority={layout.PKI}/ca.crt",
        f"--kubelet-client-certificate={layout.PKI}/kubelet-client.crt",
        f"--kubelet-client-key={layout.PKI}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={layout.PKI}/service-accounts.pub",
        f"--service-account-signing-key-file={layout.PKI}/service-accounts.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{layout.DOMAIN}",
        f"--service-cluster-ip-range={','.join(layout.SERVICE_NETWORKS)}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def controller_manager() -> list[str]:
    return [
        f"--kubeconfig={layout.kubeconfig('kube-controller-manager')}",
        f"--service-account-private-key-file={layout.PKI}/service-accounts.key",
        "--use-service-account-credentials=true",
        f"--root-ca-file={layout.PKI}/ca.crt",
        f"--cluster-signing-cert-file={layout.PKI}/ca.crt",
        f"--cluster-signing-key-file={layout.PKI}/ca.key",
        f"--cluster-cidr={','.join(layout.POD_NETWORKS)}",
        f"--service-cluster-ip-range={','.join(layout.SERVICE_NETWORKS)}",
        "--allocate-node-cidrs=false",  # each node's is a matter of its number
        "--leader-elect=false",  # there is one
    ]


def scheduler() -> list[str]:
    return [f"--kubeconfig={layout.kubeconfig('kube-scheduler')}", "--leader-elect=false"]


def containerd() -> str:
    return f"""version = 2
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  # Root may lack CAP_SYS_RESOURCE (in a container, in some virtual machines) and then cannot lower anybody's score.
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


def conflist(node: Node) -> str:
    """A routed pod network, as kindnet makes it: a veth per pod, its host end the gateway of all."""
    first = {"type": WITHOUT_DAD}
    ranges = [[{"subnet": network}] for network in node.pod_networks]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ptp = {"type": "ptp", "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [first, ptp, portmap]}, indent=1)


def kubelet() -> JSON:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{KUBELET_DIR}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{KUBELET_DIR}/pki/kubelet.crt",
        "tlsPrivateKeyFile": f"{KUBELET_DIR}/pki/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "cgroupDriver": "cgroupfs",  # a node has no systemd
        "failCgroupV1": False,  # a machine with v1 and v2 side by side will do
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi"},  # the machine's disk is not the node's
        "imageGCHighThresholdPercent": 100,  # no registry would bring an image back
        "clusterDomain": layout.DOMAIN,
        "clusterDNS": [layout.DNS_SERVICE_IPS[0]],
        "resolvConf": "",
        "syncFrequency": "10s",  # mounted ConfigMaps and tokens follow sooner than after the usual minute
    }


def kubelet_options(node: Node) -> list[str]:
    return [
        f"--config={KUBELET_CONFIG}",
        f"--kubeconfig={KUBELET_KUBECONFIG}",
        f"--hostname-override={node.name}",
        f"--node-ip={','.join(node.ips)}",
    ]


def kube_proxy(node: Node) -> JSON:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": ",".join(layout.POD_NETWORKS),
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": f"{PROXY_DIR}/kubeconfig"},
        "conntrack": {"maxPerCore": 0, "min": 0},  # its table is the machine's
    }


def node_object(node: Node) -> JSON:
    """Made before the node's kubelet registers: its pod networks are a matter of its number, not of who came first."""
    four, six = node.pod_networks
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
        "spec": {"podCIDR": four, "podCIDRs": [four, six]},
    }
