"""AuthorizationPolicies to Istio's Authorization messages and back; PeerAuthentications to some that mean it. Pure.

ztunnel is told what our agent enforces: an ALLOW rule that needs L7 is withheld, of a DENY rule the L4 part judges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf import empty_pb2

from ambient.model import mesh
from ambient.xds import details, names
from ambient.xds.proto import authorization_pb2 as pb
from ambient.xds.proto import noun_pb2 as noun

M = TypeVar("M")
T = TypeVar("T")
ACTION = {mesh.Action.ALLOW: pb.ALLOW, mesh.Action.DENY: pb.DENY}
_ACTION = {value: key for key, value in ACTION.items()}
EMPTY = empty_pb2.Empty()
EMPTY_MATCH = mesh.Match()
NO_IDENTITY = mesh.Match(not_principals=("*",))


def encode(policy: mesh.AuthorizationPolicy, root_namespace: str) -> pb.Authorization:
    hidden = [policy.action is mesh.Action.ALLOW and rule.needs_l7 for rule in policy.rules]
    more = noun.AuthorizationDetails(
        selector=policy.selector,
        targets=policy.targets,
        needs_l7=[index for index, rule in enumerate(policy.rules) if rule.needs_l7],
        withheld=[
            noun.Withheld(index=index, rule=_encode_rule(rule))
            for index, (rule, hide) in enumerate(zip(policy.rules, hidden, strict=True))
            if hide
        ],
    )
    message = _plain(policy, _scope(policy, root_namespace))
    message.rules.extend(_encode_rule(rule) for rule, hide in zip(policy.rules, hidden, strict=True) if not hide)
    return _extended(message, more)


def static_strict(root_namespace: str) -> pb.Authorization:
    """What a pod lists that takes no plaintext on any port."""
    return _derived(root_namespace, names.DERIVED_STRICT, (NO_IDENTITY,))


def port_level(policy: mesh.PeerAuthentication, inherited: mesh.MtlsMode) -> pb.Authorization | None:
    """What a pod lists for which this PeerAuthentication makes some ports different; None if it makes none so.

    inherited: the mode that holds where the policy itself is silent.
    """
    strict = mesh.MtlsMode.STRICT
    mode = policy.mode or inherited
    different = tuple(sorted(port for port, here in policy.port_modes.items() if (here is strict) != (mode is strict)))
    if not different:
        return None
    where = mesh.Match(not_destination_ports=different) if mode is strict else mesh.Match(destination_ports=different)
    return _derived(policy.namespace, names.DERIVED_PREFIX + policy.name, (NO_IDENTITY, where))


def _derived(namespace: str, name: str, clauses: Iterable[mesh.Match]) -> pb.Authorization:
    rule = mesh.Rule(clauses=tuple((match,) for match in clauses))
    policy = mesh.AuthorizationPolicy(namespace=namespace, name=name, action=mesh.Action.DENY)
    message = _plain(policy, pb.WORKLOAD_SELECTOR)
    message.rules.append(_encode_rule(rule))
    return _extended(message, noun.AuthorizationDetails(derived=True))


def _plain(policy: mesh.AuthorizationPolicy, scope: pb.Scope) -> pb.Authorization:
    return pb.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=scope,
        action=ACTION[policy.action],
        dry_run=policy.dry_run,
    )


def _extended(message: pb.Authorization, more: noun.AuthorizationDetails) -> pb.Authorization:
    message.extensions.append(pb.Extension(name=details.NAME, config=details.pack(more)))
    return message


def _scope(policy: mesh.AuthorizationPolicy, root_namespace: str) -> pb.Scope:
    if policy.selector:
        return pb.WORKLOAD_SELECTOR
    return pb.GLOBAL if policy.namespace == root_namespace else pb.NAMESPACE


def decode(message: pb.Authorization) -> mesh.AuthorizationPolicy | None:
    """None for one that was derived. Raises ValueError, in a sentence, for what cannot be understood."""
    if message.action not in _ACTION or message.scope not in (pb.GLOBAL, pb.NAMESPACE, pb.WORKLOAD_SELECTOR):
        raise ValueError(f"action {message.action} or scope {message.scope} is unknown")
    raw = details.find(message.extensions, noun.AuthorizationDetails)
    more = _made_up(message) if raw is None else noun.AuthorizationDetails.FromString(raw)
    if more.derived:
        return None
    rules = [_decode_rule(rule) for rule in message.rules]
    for hidden in more.withheld:
        rules.insert(hidden.index, _decode_rule(hidden.rule))
    if any(index >= len(rules) for index in more.needs_l7):
        raise ValueError(f"its details speak of more rules than it has: {more}")
    needs_l7 = set(more.needs_l7)
    return mesh.AuthorizationPolicy(
        namespace=message.namespace,
        name=message.name,
        action=_ACTION[message.action],
        selector=details.labels(more.selector),
        rules=tuple(mesh.Rule(clauses=clauses, needs_l7=index in needs_l7) for index, clauses in enumerate(rules)),
        dry_run=message.dry_run,
        targets=tuple(more.targets),
    )


def _made_up(message: pb.Authorization) -> noun.AuthorizationDetails:
    if message.scope != pb.WORKLOAD_SELECTOR:
        return noun.AuthorizationDetails()
    return noun.AuthorizationDetails(selector={details.policy_label(f"{message.namespace}/{message.name}"): ""})


def _encode_rule(rule: mesh.Rule) -> pb.Rule:
    """A clause without a match holds there and does not here: it is given an empty match, which holds nowhere."""
    return pb.Rule(clauses=[pb.Clause(matches=map(_encode_match, clause or (EMPTY_MATCH,))) for clause in rule.clauses])


def _decode_rule(rule: pb.Rule) -> tuple[tuple[mesh.Match, ...], ...]:
    return tuple(tuple(map(_decode_match, clause.matches)) for clause in rule.clauses if clause.matches)


def _encode_match(match: mesh.Match) -> pb.Match:
    return pb.Match(
        namespaces=map(_encode_text, match.namespaces),
        not_namespaces=map(_encode_text, match.not_namespaces),
        principals=map(_encode_text, match.principals),
        not_principals=map(_encode_text, match.not_principals),
        source_ips=map(_encode_network, match.source_ips),
        not_source_ips=map(_encode_network, match.not_source_ips),
        destination_ips=map(_encode_network, match.destination_ips),
        not_destination_ips=map(_encode_network, match.not_destination_ips),
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
        service_accounts=map(_encode_account, match.service_accounts),
        not_service_accounts=map(_encode_account, match.not_service_accounts),
    )


def _decode_match(match: pb.Match) -> mesh.Match:
    return mesh.Match(
        namespaces=_each(match.namespaces, _decode_text),
        not_namespaces=_each(match.not_namespaces, _decode_text),
        principals=_each(match.principals, _decode_text),
        not_principals=_each(match.not_principals, _decode_text),
        source_ips=_each(match.source_ips, _decode_network),
        not_source_ips=_each(match.not_source_ips, _decode_network),
        destination_ips=_each(match.destination_ips, _decode_network),
        not_destination_ips=_each(match.not_destination_ips, _decode_network),
        destination_ports=tuple(match.destination_ports),
        not_destination_ports=tuple(match.not_destination_ports),
        service_accounts=_each(match.service_accounts, _decode_account),
        not_service_accounts=_each(match.not_service_accounts, _decode_account),
    )


def _each(messages: Iterable[M], decode: Callable[[M], T]) -> tuple[T, ...]:
    return tuple(map(decode, messages))


def _encode_text(pattern: str) -> pb.StringMatch:
    """As model.match reads it: `*`, `*suffix`, `prefix*`, else exact."""
    if pattern == "*":
        return pb.StringMatch(presence=EMPTY)
    if pattern.startswith("*"):
        return pb.StringMatch(suffix=pattern[1:])
    if pattern.endswith("*"):
        return pb.StringMatch(prefix=pattern[:-1])
    return pb.StringMatch(exact=pattern)


def _decode_text(text: pb.StringMatch) -> str:
    pattern = {
        "exact": text.exact,
        "prefix": text.prefix + "*",
        "suffix": "*" + text.suffix,
        "presence": "*",
    }.get(text.WhichOneof("match_type") or "")
    if pattern is None or _encode_text(pattern) != text:
        raise ValueError(f"the text match {text} cannot be written as a pattern with one * at one end")
    return pattern


def _encode_network(network: mesh.IPNetwork) -> pb.Address:
    return pb.Address(address=network.network_address.packed, length=network.prefixlen)


def _decode_network(message: pb.Address) -> mesh.IPNetwork:
    return ipaddress.ip_network((message.address, message.length), strict=False)


def _encode_account(account: str) -> pb.ServiceAccountMatch:
    namespace, _, name = account.partition("/")
    return pb.ServiceAccountMatch(namespace=namespace, service_account=name)


def _decode_account(message: pb.ServiceAccountMatch) -> str:
    return f"{message.namespace}/{message.service_account}"
