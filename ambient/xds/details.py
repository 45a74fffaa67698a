"""What travels beside Istio's fields: details that other readers skip, and what stands for them where there are none.

istiod sends no details, so no labels and no selectors. Its workloads name their Services and policies instead: they get
a made-up label for each, and those select by the same one. No real label has that many slashes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import intern
from typing import Protocol

from google.protobuf import any_pb2, message

NAME = "ambient.dev/details"
PREFIX = "type.googleapis.com/ambient.v1."


class Extension(Protocol):
    """An element of `extensions`: Istio's types each have a message of their own for it."""

    @property
    def config(self) -> any_pb2.Any: ...


def pack(details: message.Message) -> any_pb2.Any:
    return any_pb2.Any(type_url=PREFIX + details.DESCRIPTOR.name, value=details.SerializeToString(deterministic=True))


def find(extensions: Iterable[Extension], kind: type[message.Message]) -> bytes | None:
    """The details among a message's extensions; None: it is another control plane's."""
    wanted = PREFIX + kind.DESCRIPTOR.name
    return next((each.config.value for each in extensions if each.config.type_url == wanted), None)


def labels(found: Mapping[str, str]) -> dict[str, str]:
    """Few keys and values, many pods: equal texts are one."""
    return {intern(key): intern(value) for key, value in found.items()}


def policy_label(name: str) -> str:
    """The made-up label of a workload that lists the policy "namespace/name"."""
    return intern(f"istio.security.Authorization/{name}")


def service_label(name: str) -> str:
    """The made-up label of a workload behind the Service "namespace/hostname"."""
    return intern(f"istio.workload.Service/{name}")


def port_name(service: str, port: int) -> str:
    """The made-up name of the container port that a workload serves a Service's port on: each says its own."""
    return intern(f"{service}:{port}")
