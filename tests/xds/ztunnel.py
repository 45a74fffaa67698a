"""What ztunnel makes of our resources: a reader of Istio's fields alone, by number, and its evaluation of policies.

Independent of the code under test: nothing of ambient.xds, no generated message. Source of the semantics: ztunnel's
documentation of RBAC; a policy is judged at the destination: for its namespace, the mesh, or workloads that list it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import wire
from .wire import Raw

GLOBAL, NAMESPACE, SELECTOR = 0, 1, 2
ALLOW, DENY = 0, 1


@dataclass(frozen=True)
class Connection:
    principal: str  # without a scheme; empty for plaintext
    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    to: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def parts(self) -> list[str]:
        return self.principal.split("/") if self.principal else ["", "", "", "", ""]


@dataclass
class Ztunnel:
    workloads: dict[str, Raw] = field(default_factory=dict)  # by uid
    services: dict[str, Raw] = field(default_factory=dict)  # by namespace/hostname
    policies: dict[str, Raw] = field(default_factory=dict)

    def receive(self, response: bytes) -> None:
        """One DeltaDiscoveryResponse with new resources."""
        for resource in wire.messages(wire.decode(response), 2):
            name = wire.text(resource, 3)
            any_ = wire.only(wire.messages(resource, 2))
            value = wire.decode(any_.get(2, [b""])[0])
            match wire.text(any_, 1):
                case "type.googleapis.com/istio.workload.Address" if 1 in value:
                    self.workloads[name] = wire.only(wire.messages(value, 1))
                case "type.googleapis.com/istio.workload.Address":
                    self.services[name] = wire.only(wire.messages(value, 2))
                case "type.googleapis.com/istio.security.Authorization":
                    self.policies[name] = value

    def allows(self, uid: str, connection: Connection) -> bool:
        """Dry-run policies only speak to the log."""
        applying = [policy for policy in self._applying(self.workloads[uid]) if not wire.number(policy, 6)]
        if any(matches(policy, connection) for policy in applying if wire.number(policy, 4) == DENY):
            return False
        allowing = [policy for policy in applying if wire.number(policy, 4) == ALLOW]
        return not allowing or any(matches(policy, connection) for policy in allowing)

    def _applying(self, workload: Raw) -> Iterable[Raw]:
        listed = set(wire.texts(workload, 16))
        for name, policy in self.policies.items():
            scope = wire.number(policy, 3)
            if scope == SELECTOR:
                if name in listed:
                    yield policy
            elif scope == GLOBAL or wire.text(policy, 2) == wire.text(workload, 2):
                yield policy


def matches(policy: Raw, connection: Connection) -> bool:
    """Any rule; a rule: every clause; no rule: nothing; no clause: everything."""
    return any(
        all(clause_holds(clause, connection) for clause in wire.messages(rule, 1)) for rule in wire.messages(policy, 5)
    )


def clause_holds(clause: Raw, connection: Connection) -> bool:
    """Any match that has a field; without any match at all it holds."""
    found = wire.messages(clause, 2)
    return not found or any(match_holds(match, connection) for match in found if match)


def match_holds(match: Raw, c: Connection) -> bool:
    _, _, namespace, _, account = c.parts
    has_identity = bool(c.principal)
    fields: list[tuple[int, Callable[[Any], bool]]] = [
        (1, lambda value: text_holds(wire.decode(value), namespace)),
        (3, lambda value: text_holds(wire.decode(value), c.principal)),
        (5, lambda value: within(wire.decode(value), c.source)),
        (7, lambda value: within(wire.decode(value), c.to)),
        (9, lambda value: bool(value == c.port)),
        (11, lambda value: has_identity and same_account(wire.decode(value), namespace, account)),
    ]
    return all(
        (not positive(match, number) or any(holds(value) for value in positive(match, number)))
        and not any(holds(value) for value in positive(match, number + 1))
        for number, holds in fields
    )


def positive(match: Raw, number: int) -> list[Any]:
    """Of a repeated field; numbers may be packed into one."""
    values = match.get(number, [])
    if number in (9, 10) and values and isinstance(values[0], bytes):
        return unpack(values[0])
    return values


def unpack(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = wire._take(data, at)
        found.append(value)
    return found


def text_holds(pattern: Raw, text: str) -> bool:
    """exact, prefix, suffix, or present; without an identity, text is empty and nothing holds."""
    if not text:
        return False
    if 1 in pattern:
        return wire.text(pattern, 1) == text
    if 2 in pattern:
        return text.startswith(wire.text(pattern, 2))
    return text.endswith(wire.text(pattern, 3)) if 3 in pattern else 4 in pattern


def within(block: Raw, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    network = ipaddress.ip_network((block[1][0], wire.number(block, 2)))
    return network.version == ip.version and ip in network


def same_account(match: Raw, namespace: str, account: str) -> bool:
    return (wire.text(match, 1), wire.text(match, 2)) == (namespace, account)
