"""What every engine must know to serve this node, kept to be said again to the next one. Sends nothing."""

from __future__ import annotations

import array
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ambient.dataplane import abi
from ambient.dataplane.pods import listener_id
from ambient.dataplane.wire import Message


@dataclass(slots=True)
class PodState:
    cookie: int
    family: socket.AddressFamily
    context: int
    listeners: Mapping[abi.Role, socket.socket]
    restocked: dict[int, float] = field(default_factory=dict)  # by link: when, by the loop's clock


class Desired:
    def __init__(self, settings: abi.Settings, stash: int) -> None:
        self.pods: dict[int, PodState] = {}
        self.listening = False  # questions and records are wanted
        self.stash = stash  # sockets per pod and worker
        self._settings = settings
        self._clients_map: int | None = None
        self._contexts: dict[int, Message] = {}
        self._kept: frozenset[int] | None = None  # contexts engines may have; None: not said yet

    def settings(self) -> Message:
        return Message(abi.Type.SETTINGS, self._settings)

    def clients_map(self, fd: int) -> Message:
        self._clients_map = fd
        return Message(abi.Type.CLIENTS_MAP, fds=[fd])

    def context(self, number: int, expires_at_ns: int, cert: bytes, key: bytes, roots: bytes) -> Message:
        body = abi.Context(
            context=number, expires_at=expires_at_ns, cert_len=len(cert), key_len=len(key), roots_len=len(roots)
        )
        self._contexts[number] = Message(abi.Type.CONTEXT, body, cert + key + roots)
        return self._contexts[number]

    def only_contexts(self, numbers: frozenset[int]) -> list[Message]:
        """Forget all others; nothing is to be said when that was said before."""
        for gone in self._contexts.keys() - numbers:
            del self._contexts[gone]
        if numbers == self._kept:
            return []
        self._kept = numbers
        body = abi.Contexts(count=len(numbers))
        return [Message(abi.Type.CONTEXTS, body, array.array("Q", numbers).tobytes())]

    def pod(self, pod: PodState) -> Iterator[Message]:
        """Serve it: what it is, and its listening sockets."""
        yield Message(abi.Type.POD, abi.Pod(pod=pod.cookie, stash_family=pod.family, stash_want=self.stash))
        for role, sock in pod.listeners.items():
            body = abi.Listen(
                listener=listener_id(pod.cookie, role),
                pod=pod.cookie,
                context=pod.context if role is abi.Role.INBOUND_TUNNEL else 0,
                role=role,
            )
            yield Message(abi.Type.LISTEN, body, fds=[sock.fileno()])

    def all(self) -> Iterator[Message]:
        """For an engine that is to serve from now on."""
        if self.listening:
            yield self.settings()
        if self._clients_map is not None:
            yield Message(abi.Type.CLIENTS_MAP, fds=[self._clients_map])
        yield from self._contexts.values()
        for pod in self.pods.values():
            yield from self.pod(pod)
