"""The mesh on the cluster, installed as users do it: `kubectl apply` of the one file. The nodes have its image."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from hack.kube import Cluster, ClusterError, layout
from tests.cluster.manifests import Manifest
from tests.mesh.waiting import eventually

NAMESPACE = "ambient-system"
ROLLED_OUT_S = 120


class Mesh:
    """Installed in the `with` block; gone, and awaited to be, after it."""

    def __init__(self, cluster: Cluster, file: Path) -> None:
        self._cluster = cluster
        self._manifests: list[Manifest] = [body for body in yaml.safe_load_all(file.read_text()) if body]

    def __enter__(self) -> Self:
        self.apply()
        self.await_rollout()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._keep_logs()
        self.remove()

    def apply(self, *, tag: str = "") -> None:
        """Again, too: what somebody changed or deleted is there anew. `tag`: another release's file names the image so.

        The nodes get the same image under that name.
        """
        said = json.dumps(self._manifests)
        (image,) = set(re.findall(r'"image": "([^"]+)"', said))
        if tag:
            named = f"{image.rpartition(':')[0]}:{tag}"
            for node in self._cluster.nodes.values():
                node.run(["ctr", "--namespace=k8s.io", "images", "tag", "--force", image, named])
            said = said.replace(f'"image": "{image}"', f'"image": "{named}"')
        self._cluster.apply(json.loads(said))

    def remove(self) -> None:
        """As users do it, with the one file; returns when all of it is gone."""
        self._cluster.delete(self._manifests)

    def _keep_logs(self) -> None:
        """Beside the cluster's own, which are kept when a session fails: pods that are gone cannot be asked."""
        layout.LOGS.mkdir(parents=True, exist_ok=True)
        for pod in self._cluster.get("pods", "--namespace", NAMESPACE)["items"]:
            name = pod["metadata"]["name"]
            with contextlib.suppress(ClusterError):  # of a pod that is ending
                said = self._cluster.kubectl("--namespace", NAMESPACE, "logs", "--all-containers", name)
                (layout.LOGS / f"{name}.log").write_text(said)

    def await_rollout(self) -> None:
        """Return when every Deployment and DaemonSet of the mesh runs what it says."""
        for found in self._cluster.get("deployments,daemonsets", "--namespace", NAMESPACE)["items"]:
            name = f"{found['kind'].lower()}/{found['metadata']['name']}"
            if found["metadata"]["name"] == "ambient-engine":
                eventually("the engines are new", self._engines_are_new, within=ROLLED_OUT_S)
                continue
            within = f"--timeout={ROLLED_OUT_S}s"
            self._cluster.kubectl("--namespace", NAMESPACE, "rollout", "status", within, name)

    def _engines_are_new(self) -> bool:
        """`rollout status` counts the oldest pod of a node, so it waits for old engines' last connections too."""
        told = self._cluster.get("--namespace", NAMESPACE, "daemonset", "ambient-engine")
        generation = told["metadata"]["annotations"]["deprecated.daemonset.template.generation"]
        selector = f"app.kubernetes.io/name=ambient-engine,pod-template-generation={generation}"
        pods = self._cluster.get("--namespace", NAMESPACE, "pods", "--selector", selector)["items"]
        return sum(_is_ready(pod) for pod in pods) == len(self._cluster.nodes)


def _is_ready(pod: Manifest) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
