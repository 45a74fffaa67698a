"""Manifests as people write them: a namespace, a node, pods and what selects them."""

from __future__ import annotations

from ambient.model import mesh

CONFIG = mesh.MeshConfig()


def pod(name: str, ip: str, *, namespace: str = "shop", labels: str = "{app: web}", more: str = "") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, uid: u-{name}, labels: {labels}}}
spec: {{nodeName: n1 {more}}}
status: {{podIP: {ip}, conditions: [{{type: Ready, status: "True"}}]}}
"""


def namespace(name: str = "shop", labels: str = "{ambient.dev/mode: enabled}") -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n"


def node(name: str = "n1", zone: str = "a") -> str:
    labels = f"{{topology.kubernetes.io/zone: {zone}}}"
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n"


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {action: DENY, rules: [{}]}
"""
