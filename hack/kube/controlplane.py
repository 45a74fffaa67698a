"""etcd, API server, controller manager, scheduler and DNS: one of each, in a network namespace of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from hack.kube import components, config, dns, layout, network
from hack.kube.cgroups import Hierarchies
from hack.kube.pki import Authority, new_key, private_key_pem, public_key_pem
from hack.kube.service import Service

READY_S = 60.0
ADMIN = "admin"
USERS = {  # who has a kubeconfig, and the groups that give rights which Kubernetes does not give by name
    ADMIN: ("system:masters",),
    "kube-controller-manager": (),
    "kube-scheduler": (),
    dns.USER: (),
}


class ControlPlane:
    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies
        self.etcd = self._service("etcd")
        self.apiserver = self._service("kube-apiserver")
        self.controller_manager = self._service("kube-controller-manager")
        self.scheduler = self._service("kube-scheduler")
        self.dns = self._service("coredns")

    def _service(self, name: str) -> Service:
        return Service(name, self._hierarchies.top / "control-plane" / name)

    def install(self, authority: Authority) -> None:
        """Write certificates, keys, kubeconfigs, and a `kubectl` for people."""
        names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{layout.DOMAIN}",
        ]
        names += ["localhost", "127.0.0.1", layout.API_SERVICE_IP, *layout.CONTROL_PLANE_IPS]
        pairs = {
            "ca": authority.pair,
            "apiserver": authority.issue("kube-apiserver", names=names),
            "kubelet-client": authority.issue("kube-apiserver-kubelet-client", groups=["system:masters"]),
        }
        accounts = new_key()
        files = {layout.PKI / f"{name}.crt": pair.certificate for name, pair in pairs.items()}
        files |= {layout.PKI / f"{name}.key": pair.key for name, pair in pairs.items()}
        files |= {
            layout.PKI / "service-accounts.key": private_key_pem(accounts),
            layout.PKI / "service-accounts.pub": public_key_pem(accounts),
            layout.STATE / "Corefile": dns.corefile().encode(),
            layout.KUBECTL: _kubectl_script().encode(),
        }
        for user, groups in USERS.items():
            # The names that RBAC's defaults know are those of the components with this before them.
            name = user if user.startswith("system:") or groups else f"system:{user}"
            kubeconfig = config.kubeconfig(authority.pair.certificate, authority.issue(name, groups=groups))
            files[layout.kubeconfig(user)] = kubeconfig.encode()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
        layout.KUBECTL.chmod(0o700)

    def start(self) -> None:
        """Everything, in the order of who needs whom; returns when the API answers."""
        self._hierarchies.add("control-plane")
        self._start(self.etcd, config.etcd())
        self.start_api()
        programs = components.built()
        self._start(self.controller_manager, [programs / "kube-controller-manager", *config.controller_manager()])
        self._start(self.scheduler, [programs / "kube-scheduler", *config.scheduler()])
        self._start(self.dns, [programs / "coredns", "-conf", layout.STATE / "Corefile"])

    def start_api(self) -> None:
        """The API server alone; returns when it is ready."""
        self._start(self.apiserver, [components.built() / "kube-apiserver", *config.apiserver()])
        self.apiserver.until("a ready API", self.ready, within=READY_S)

    def await_dns(self) -> None:
        """Return when DNS has read the cluster's services."""
        command = [*network.into(layout.CONTROL_PLANE), "curl", "-sf", "--max-time", "2", dns.READY_URL]
        self.dns.until("a DNS that is ready", lambda: _succeeds(command), within=READY_S)

    def ready(self) -> bool:
        command = [str(layout.KUBECTL), "get", "--raw=/readyz", "--request-timeout=2s"]
        return _succeeds(command)

    def _start(self, service: Service, command: Sequence[str | Path]) -> None:
        service.start(command, enter=network.into(layout.CONTROL_PLANE))


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _kubectl_script() -> str:
    return f"""#!/bin/sh
exec {" ".join(network.into(layout.CONTROL_PLANE))} {components.built()}/kubectl \\
  --kubeconfig={layout.kubeconfig(ADMIN)} --cache-dir={layout.STATE}/kubectl-cache "$@"
"""
