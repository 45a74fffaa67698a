"""A captured pod dials something: route.plan() turned into targets the engine can try. Pure; random.Random is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

from ambient.capture.abi import Kind
from ambient.dataplane import abi, headers, inbound, parties
from ambient.dataplane.pods import context_id, tunnel_id
from ambient.dataplane.questions import Hop, Outbound, Outcome, Target, Way
from ambient.model import egress, route, samenode
from ambient.model.mesh import Identity, IPAddress, Service, Workload
from ambient.model.world import World
from ambient.observe.records import Flow, Party

# Refusals that the kernel may give by itself: no question's wait for news, and no endpoint's health, would change them.
# Of an unknown pod the first question has waited; the news takes the verdict back.
_KERNEL_REFUSES = frozenset({"not_in_registry", "mtls_required", "unknown_pod"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This node, as far as connections go direct."""

    captured: Callable[[str], int | None] = lambda _: None  # by workload key: its network namespace's cookie
    aside: Container[tuple[str, str]] = field(default_factory=frozenset)  # client and server that go through the engine


NOWHERE = Here()  # nothing goes direct


def judge(
    question: Outbound,
    world: World,
    *,
    avoid: Container[tuple[IPAddress, int]],
    rng: random.Random,
    host: Container[IPAddress] = (),
    here: Here = NOWHERE,
) -> Outcome:
    """Where the connection goes. `avoid`: endpoints that did not answer lately; `host`: see route.plan()."""
    client = world.workloads.get(question.client)
    if client is None or client.uid != question.uid:
        deps = frozenset({f"wl:{question.client}"})
        return _refuse(
            question,
            world,
            parties.missing(question.client),
            "unknown_workload",
            "this pod is not (or no more) in the World",
            deps,
        )
    source = Party.of(client, client.identity(world.mesh.trust_domain))
    mine = here.captured(client.key) == question.cookie
    match route.plan(world, client, question.to, question.port, avoid=avoid, host=host):
        case route.Refuse() as refused:
            way = Way(kind=Kind.REFUSE) if mine and refused.reason in _KERNEL_REFUSES else None
            return _refuse(question, world, source, refused.reason, refused.why, refused.deps, way)
        case route.Passthrough() as passed:
            return Outcome(
                verdict=abi.Verdict.CARRY,
                flow=_flow(question, world, source, None, tunnel=False, rule=passed.why),
                deps=passed.deps,
                targets=(Target(question.to, question.port, 1),),
                way=Way(kind=Kind.PASS) if mine and not world.claims(question.to) else None,
            )
        case route.Carry() as carry:
            outcome = _carry(question, world, client, carry, source, rng)
            few = len(carry.choices) <= samenode.MOST_ENDPOINTS
            return _directly(outcome, question, world, client, carry, here) if mine and few else outcome


def recheck(question: Outbound, hop: Hop, world: World) -> samenode.Direct | samenode.Indirect:
    """May connections that went to this hop directly go on?"""
    client, server = world.workloads.get(question.client), world.workloads.get(hop.server)
    for pod, key, uid in ((client, question.client, question.uid), (server, hop.server, hop.uid)):
        if pod is None or pod.uid != uid:
            why = f"pod {key} is not, or no longer, in the mesh's configuration"
            return samenode.Indirect(
                reason="unknown_workload",
                why=why,
                rule=why,
                denied=True,
                deps=frozenset({f"wl:{question.client}", f"wl:{hop.server}"}),
            )
    assert client is not None
    assert server is not None
    found = samenode.between(world, client, server, hop.ip, hop.port)
    if isinstance(found, samenode.Direct) or server.tunnelled:
        return found
    found = replace(found, deps=found.deps | egress.deps(world, client))  # new ones there would be in the clear
    if said_by := egress.requires_mtls(world, client):
        why = f"{found.why}, and {said_by} requires mutual TLS"
        return replace(found, reason="mtls_required", why=why, rule=why, denied=True)
    return found


def _directly(
    outcome: Outcome, question: Outbound, world: World, client: Workload, carry: route.Carry, here: Here
) -> Outcome:
    """With the way for the kernel, if one of the choices is a pod that may be reached without us."""
    hops, deps = [], set(outcome.deps)
    for choice in carry.choices:
        if not choice.weight:
            continue  # for when others fail: the kernel does not try twice
        hop = Hop(ip=choice.address, port=choice.port, weight=choice.weight)
        same_family = choice.address.version == question.to.version  # else the socket could not be turned to it
        if choice.workload is not None and choice.workload.node == client.node and same_family:
            judged = samenode.between(world, client, choice.workload, choice.address, choice.port)
            deps |= judged.deps
            cookie = here.captured(choice.workload.key)
            if isinstance(judged, samenode.Direct) and cookie and (client.key, choice.workload.key) not in here.aside:
                hop = direct_hop(world, client, choice.workload, hop, cookie, judged, carry.service)
        hops.append(hop)
    way = Way(kind=Kind.DIRECT, hops=tuple(hops)) if any(hop.cookie for hop in hops) else None
    return replace(outcome, deps=frozenset(deps), way=way)


def direct_hop(
    world: World,
    client: Workload,
    server: Workload,
    hop: Hop,
    cookie: int,
    judged: samenode.Direct,
    service: Service | None,
) -> Hop:
    """The hop as one that needs no engine, and what records say of it."""
    flow = Flow(
        reporter="destination",
        source=Party.of(client, client.identity(world.mesh.trust_domain)),
        destination=Party.of(server, server.identity(world.mesh.trust_domain), str(hop.ip)),
        service=service.hostname if service else "",
        verdict="allow",
        rule=inbound.rule_of(judged.allow),
        path="direct",
        security="unknown",
    )
    return replace(hop, cookie=cookie, server=server.key, uid=server.uid, flow=flow)


def _carry(
    question: Outbound,
    world: World,
    client: Workload,
    carry: route.Carry,
    source: Party,
    rng: random.Random,
) -> Outcome:
    chosen = _sample(carry.choices, abi.CHOICES_MAX, rng)
    tunnelled = any(choice.identity for choice in chosen)
    return Outcome(
        verdict=abi.Verdict.CARRY,
        flow=_flow(question, world, source, carry.service, tunnel=tunnelled, rule=carry.why, choices=chosen),
        deps=carry.deps,
        targets=tuple(_target(question.cookie, client.identity(world.mesh.trust_domain), choice) for choice in chosen),
        sampled=len(chosen) < len(carry.choices),
        host=carry.service.hostname if carry.service else "",
        baggage=headers.baggage(client),
    )


def _target(cookie: int, client: Identity, choice: route.Choice) -> Target:
    if choice.identity is None:
        return Target(choice.address, choice.port, choice.weight)
    return Target(
        choice.address,
        choice.port,
        choice.weight,
        tunnel=tunnel_id(cookie, choice.address, choice.identity),
        context=context_id(client),
    )


def _sample(choices: Sequence[route.Choice], most: int, rng: random.Random) -> tuple[route.Choice, ...]:
    """At most `most`: by weight without replacement (Efraimidis and Spirakis, 2006), and the first fallbacks."""
    if len(choices) <= most:
        return tuple(choices)
    fallbacks = [choice for choice in choices if not choice.weight][: route.FALLBACKS]
    keyed = {rng.random() ** (1 / choice.weight): choice for choice in choices if choice.weight}
    kept = sorted(keyed, reverse=True)[: most - len(fallbacks)]
    return (*(keyed[key] for key in kept), *fallbacks)


def _flow(
    question: Outbound,
    world: World,
    source: Party,
    service: Service | None,
    *,
    tunnel: bool,
    rule: str,
    choices: Sequence[route.Choice] = (),
) -> Flow:
    """Where several endpoints may serve, the record's destination is what they have in common."""
    destination = parties.at(world, question.to)
    if len(choices) == 1:
        destination = Party.of(choices[0].workload, choices[0].identity, str(choices[0].address))
    elif choices:
        destination = _shared([Party.of(choice.workload, choice.identity) for choice in choices])
    return Flow(
        reporter="source",
        source=source,
        destination=destination,
        service=service.hostname if service else "",
        verdict="allow",
        rule=rule,
        reason="",
        path="tunnel" if tunnel else "plaintext",
        security="mutual_tls" if tunnel else "unknown",
    )


def _shared(parties: Sequence[Party]) -> Party:
    """What all of them have in common."""
    values = {name: {getattr(party, name) for party in parties} for name in Party.__slots__}
    return Party(**{name: next(iter(found)) if len(found) == 1 else "" for name, found in values.items()})


def _refuse(
    question: Outbound,
    world: World,
    source: Party,
    reason: str,
    why: str,
    deps: frozenset[str],
    way: Way | None = None,
) -> Outcome:
    service = world.service_at(question.to)
    return Outcome(
        verdict=abi.Verdict.REFUSE,
        flow=Flow(
            reporter="source",
            source=source,
            destination=parties.at(world, question.to),
            service=service.hostname if service else "",
            verdict="deny",
            rule=why,
            reason=reason,
            path="none",
            security="unknown",
        ),
        deps=deps,
        way=way,
    )
