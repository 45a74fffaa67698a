"""Whether an AuthorizationPolicy's rule matches a connection. Pure; knows no precedence and no World.

Source: Istio's AuthorizationPolicy reference. A rule is AND over its clauses, a clause OR over its matches, a match AND
over its fields; a field holds if one of its values does (or it has none) and none of its negative values does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ambient.model.mesh import (
    Action,
    AuthorizationPolicy,
    Identity,
    IPAddress,
    IPNetwork,
    Match,
    Rule,
)

T = TypeVar("T")
V = TypeVar("V")
EMPTY = Match()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a rule can look at."""

    peer: Identity | None
    source: IPAddress
    to: IPAddress
    port: int

    @property
    def principal(self) -> str:
        return self.peer.principal if self.peer else ""

    @property
    def namespace(self) -> str:
        return self.peer.namespace if self.peer else ""

    @property
    def service_account(self) -> str:
        """namespace/name: serviceAccounts do not look at the trust domain."""
        return f"{self.peer.namespace}/{self.peer.service_account}" if self.peer else ""


def matching_rule(policy: AuthorizationPolicy, connection: Connection) -> int | None:
    """The index of the policy's first rule that matches. A policy without rules matches nothing."""
    for index, rule in enumerate(policy.rules):
        if rule_matches(rule, policy.action, connection):
            return index
    return None


def rule_matches(rule: Rule, action: Action, connection: Connection) -> bool:
    """A rule that needs L7 never allows, and denies by its L4 part alone: both err on the side of refusing."""
    if rule.needs_l7 and action is Action.ALLOW:
        return False
    return all(any(matches(match, connection) for match in clause) for clause in rule.clauses)


def matches(match: Match, connection: Connection) -> bool:
    """An empty match matches nothing."""
    if match == EMPTY:
        return False
    return (
        _field(match.principals, match.not_principals, connection.principal, text_matches)
        and _field(match.namespaces, match.not_namespaces, connection.namespace, text_matches)
        and _field(match.service_accounts, match.not_service_accounts, connection.service_account, _same_account)
        and _field(match.source_ips, match.not_source_ips, connection.source, _within)
        and _field(match.destination_ips, match.not_destination_ips, connection.to, _within)
        and _field(match.destination_ports, match.not_destination_ports, connection.port, int.__eq__)
    )


def _field(values: tuple[T, ...], not_values: tuple[T, ...], actual: V, holds: Callable[[T, V], bool]) -> bool:
    """Without a positive value the field asks for nothing."""
    return (not values or any(holds(value, actual) for value in values)) and not any(
        holds(value, actual) for value in not_values
    )


def text_matches(pattern: str, text: str) -> bool:
    """exact, `prefix*`, `*suffix`, or `*`: any text at all. Nothing matches a missing identity's empty text."""
    if pattern == "*":
        return text != ""
    if not text:
        return False
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return pattern == text


def _same_account(pattern: str, account: str) -> bool:
    """Without wildcards."""
    return account != "" and pattern == account


def _within(network: IPNetwork, ip: IPAddress) -> bool:
    return ip.version == network.version and ip in network
