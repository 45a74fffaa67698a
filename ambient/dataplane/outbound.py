"""A captured pod dials something: route.plan() turned into targets the engine can try. Pure; random.Random is given."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence

from ambient.dataplane import abi, headers, parties
from ambient.dataplane.pods import context_id, tunnel_id
from ambient.dataplane.questions import Outbound, Outcome, Target
from ambient.model import route
from ambient.model.mesh import Identity, IPAddress, Service, Workload
from ambient.model.world import World
from ambient.observe.records import Flow, Party


def judge(
    question: Outbound,
    world: World,
    *,
    avoid: Container[tuple[IPAddress, int]],
    rng: random.Random,
) -> Outcome:
    """Where the connection goes. `avoid`: endpoints set aside because they did not answer lately."""
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
    match route.plan(world, client, question.to, question.port, avoid=avoid):
        case route.Refuse() as refused:
            return _refuse(question, world, source, refused.reason, refused.why, refused.deps)
        case route.Passthrough() as passed:
            return Outcome(
                verdict=abi.Verdict.CARRY,
                flow=_flow(question, world, source, None, tunnel=False, rule=passed.why),
                deps=passed.deps,
                targets=(Target(question.to, question.port, 1),),
            )
        case route.Carry() as carry:
            return _carry(question, world, client, carry, source, rng)


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


def _refuse(question: Outbound, world: World, source: Party, reason: str, why: str, deps: frozenset[str]) -> Outcome:
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
    )
