"""What the CNI plugin sends, read; what it prints, written. Pure. Source: the CNI specification, 1.1; cni/ask.h.

Only what the agent needs is read: a result keeps its other fields, and the plugin prints it as it came.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ambient.model.mesh import IPAddress, address

FORMAT = "1"  # of the message; the plugin is installed by the agent it talks to, so another is of an agent before this
CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # the specification's; it becomes a file's name
INVALID_ENVIRONMENT, INVALID_CONTENT, INVALID_CONFIG, TRY_AGAIN_LATER = 4, 6, 7, 11  # the specification's
NOT_CAPTURED = 100  # ours: what CHECK finds


class Refusal(Exception):
    """The answer is an error of this code; the runtime shows the text, and Kubernetes makes an Event of it."""

    def __init__(self, code: int, why: str, details: str = "") -> None:
        super().__init__(why)
        self.code, self.why, self.details = code, why, details


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    command: str  # ADD, DEL, CHECK or GC
    container: str = ""  # the sandbox's id; empty for GC
    namespace: str = ""
    name: str = ""
    uid: str = ""  # empty where the runtime does not say it
    version: str = "1.0.0"  # of the specification, as the configuration has it
    addresses: tuple[IPAddress, ...] = ()  # the pod's own, by the plugins before us
    valid: frozenset[str] | None = field(default=None)  # GC: the containers there are; None: it does not say

    @property
    def pod(self) -> str:
        """The workload's key."""
        return f"{self.namespace}/{self.name}"


def read(message: bytes) -> Request:
    """Raises Refusal for what is no message of the plugin."""
    head, separator, config = message.partition(b"\0\0")
    given = dict(item.partition("=")[::2] for item in head.decode(errors="replace").split("\0"))
    if not separator or given.get("AMBIENT_CNI") != FORMAT:
        raise Refusal(
            INVALID_ENVIRONMENT,
            f"ambient: the CNI plugin speaks {given.get('AMBIENT_CNI') or 'nothing known'}, this agent {FORMAT}",
            "the agent installs its own when it starts; is --cni-bin-dir where the runtime looks?",
        )
    try:
        body = json.loads(config)
    except ValueError as error:
        raise Refusal(INVALID_CONTENT, f"ambient: the network configuration is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(INVALID_CONTENT, "ambient: the network configuration is no JSON object")
    container = given.get("CNI_CONTAINERID", "")
    if container and not CONTAINER.fullmatch(container):
        raise Refusal(INVALID_ENVIRONMENT, f"ambient: {container!r} is no container id")
    pod = dict(item.partition("=")[::2] for item in given.get("CNI_ARGS", "").split(";"))
    return Request(
        command=given.get("CNI_COMMAND", ""),
        container=container,
        namespace=pod.get("K8S_POD_NAMESPACE", ""),
        name=pod.get("K8S_POD_NAME", ""),
        uid=pod.get("K8S_POD_UID", ""),
        version=str(body.get("cniVersion") or "1.0.0"),
        addresses=_addresses(body.get("prevResult")),
        valid=_valid(body.get("cni.dev/valid-attachments")),
    )


def error(refusal: Refusal, version: str) -> bytes:
    """A CNI error, for the plugin to print."""
    told = {"cniVersion": version, "code": refusal.code, "msg": refusal.why, "details": refusal.details}
    return json.dumps(told).encode()


def _addresses(result: Any) -> tuple[IPAddress, ...]:
    """The first of each family, as Kubernetes has it, of those inside the pod: a result may name the host's too."""
    if not isinstance(result, dict):
        return ()
    interfaces = result.get("interfaces") or []
    found: dict[int, IPAddress] = {}
    try:
        for entry in result.get("ips") or []:
            at = entry.get("interface")
            if at is not None and at >= 0 and not interfaces[at].get("sandbox"):
                continue
            ip = address(entry["address"].partition("/")[0])
            found.setdefault(ip.version, ip)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as wrong:
        raise Refusal(INVALID_CONTENT, f"ambient: the previous plugin's result cannot be read: {wrong!r}") from None
    return tuple(found.values())


def _valid(attachments: Any) -> frozenset[str] | None:
    if not isinstance(attachments, list):
        return None
    return frozenset(
        str(entry["containerID"]) for entry in attachments if isinstance(entry, dict) and "containerID" in entry
    )
