"""The captured pods of this node, as the decisions see them: which netns belongs to which workload. Values only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ambient.dataplane.abi import Role
from ambient.model.mesh import Identity, IPAddress


@dataclass(frozen=True, slots=True)
class LocalPod:
    cookie: int  # its netns; the engine's pod id
    workload: str
    uid: str
    identity: Identity


class LocalPods:
    """By netns cookie and by workload key."""

    def __init__(self) -> None:
        self._by_cookie: dict[int, LocalPod] = {}
        self._by_workload: dict[str, LocalPod] = {}

    def __iter__(self) -> Iterator[LocalPod]:
        return iter(tuple(self._by_cookie.values()))

    def add(self, pod: LocalPod) -> None:
        self._by_cookie[pod.cookie] = pod
        self._by_workload[pod.workload] = pod

    def remove(self, cookie: int) -> None:
        pod = self._by_cookie.pop(cookie, None)
        if pod is not None and self._by_workload.get(pod.workload) is pod:
            del self._by_workload[pod.workload]

    def of_listener(self, listener: int) -> LocalPod | None:
        return self._by_cookie.get(listener >> 2)

    def of_cookie(self, cookie: int) -> LocalPod | None:
        return self._by_cookie.get(cookie)

    def of_workload(self, key: str) -> LocalPod | None:
        return self._by_workload.get(key)


def listener_id(cookie: int, role: Role) -> int:
    """Deterministic, so that the next agent recognises the listeners of this one."""
    return cookie << 2 | role


def role_of(listener: int) -> Role:
    return Role(listener & 3)


def context_id(identity: Identity) -> int:
    """The engine's number for an identity's certificate."""
    return _number("context", str(identity))


def tunnel_id(cookie: int, ip: IPAddress, identity: Identity) -> int:
    """Tunnels are shared by one pod towards one endpoint with one identity, and by nobody else."""
    return _number("tunnel", str(cookie), str(ip), str(identity))


def _number(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") or 1
