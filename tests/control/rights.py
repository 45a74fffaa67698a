"""The control plane's rights as daemonset.yaml grants them, enforced and counted before the API server in miniature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from .replicas import SYSTEM, Api

MANIFEST = Path(__file__).parents[2] / "daemonset.yaml"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Right = tuple[str, str, str]  # group, resource (or resource/subresource), verb


@dataclass(frozen=True)
class Rule:
    namespace: str  # empty: holds everywhere
    rights: frozenset[Right]
    names: frozenset[str]  # empty: all

    def allows(self, right: Right, namespace: str, name: str) -> bool:
        inside = self.namespace in ("", namespace)
        return inside and right in self.rights and (not self.names or name in self.names)


def rules(account: str) -> list[Rule]:
    """What the manifest grants to a ServiceAccount."""
    objects = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each]
    bound = {
        (each["roleRef"]["kind"], each["roleRef"]["name"])
        for each in objects
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and {"kind": "ServiceAccount", "name": account, "namespace": SYSTEM} in each["subjects"]
    }
    return [
        Rule(each["metadata"].get("namespace", ""), frozenset(_rights(rule)), frozenset(rule.get("resourceNames", ())))
        for each in objects
        if (each["kind"], each["metadata"]["name"]) in bound
        for rule in each["rules"]
    ]


def _rights(rule: dict[str, list[str]]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield group, resource, verb


class GuardedApi(Api):
    def __init__(self) -> None:
        super().__init__()
        self.rules = rules("ambient-control")
        self.used: set[Right] = set()
        self.denied: list[str] = []

    @property
    def granted(self) -> set[Right]:
        return {right for rule in self.rules for right in rule.rights}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for right, namespace, name in self._needed(request):
            if not any(rule.allows(right, namespace, name) for rule in self.rules):
                self.denied.append(f"{right[2]} {right[1]}.{right[0]} {namespace}/{name}")
                status = {"kind": "Status", "status": "Failure", "code": 403, "message": f"cannot {self.denied[-1]}"}
                return httpx2.Response(403, json=status, request=request)
            self.used.add(right)
        return await super().handle_async_request(request)

    def _needed(self, request: httpx2.Request) -> Iterator[tuple[Right, str, str]]:
        """As an API server reads a request, to ask whether it may be."""
        parts = request.url.path.strip("/").split("/")
        group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace, parts = (parts[1], parts[2:]) if parts[0] == "namespaces" and len(parts) > 2 else ("", parts)
        resource, name, sub = [*parts, "", ""][:3]
        params = request.url.params
        verb = VERBS.get(request.method) or ("watch" if params.get("watch") else "get" if name else "list")
        selected = params.get("fieldSelector", "")
        if verb in ("list", "watch") and selected.startswith("metadata.name="):
            name = selected.removeprefix("metadata.name=")
        yield (group, f"{resource}/{sub}" if sub else resource, verb), namespace, name
        applied: Any = request.headers.get("content-type") == "application/apply-patch+yaml" and json.loads(
            request.content
        )
        if applied and (resource, namespace, name) not in self.server.objects:
            yield (group, resource, "create"), namespace, ""
