"""Somebody wants into a captured pod: over a tunnel (its certificate, then each CONNECT) or in the clear. Pure.

Identity comes from the certificate alone; the source address is a cross-check that must hold too.
"""

from __future__ import annotations

from collections.abc import Collection

from ambient.dataplane import abi, parties
from ambient.dataplane.questions import Outcome, Peer, Plaintext, Request, Target
from ambient.model import policy
from ambient.model.mesh import IPAddress, Workload
from ambient.model.world import World
from ambient.observe.records import Flow, Party

BAD_REQUEST, DENIED, UNAVAILABLE = 400, 401, 503


def judge_peer(question: Peer, world: World) -> Outcome:
    """Is the certificate's identity the one that belongs to the address it comes from, or was dialled?

    Of a tunnel that was dialled, its number said already that it was dialled for this identity.
    """
    pod = _current(world, question.pod, question.uid)
    remote = parties.at(world, question.remote, question.identity)
    here = Party.of(pod, pod.identity(world.mesh.trust_domain)) if pod else parties.missing(question.pod)
    source, destination = (here, remote) if question.outbound else (remote, here)
    problem = policy.check_source(world, question.identity, question.remote) if pod else _gone(question.pod)
    holder = world.workload_at(question.remote)
    deps = {f"wl:{question.pod}", f"ip:{question.remote}", "mesh"} | ({f"wl:{holder.key}"} if holder else set())
    return Outcome(
        verdict=abi.Verdict.REFUSE if problem else abi.Verdict.ACCEPT,
        flow=Flow(
            reporter="source" if question.outbound else "destination",
            source=source,
            destination=destination,
            verdict="deny" if problem else "allow",
            rule=problem[1] if problem else "the certificate's identity belongs to its address",
            reason=problem[0] if problem else "",
            path="tunnel",
            security="mutual_tls",
        ),
        deps=frozenset(deps),
        status=DENIED if problem else 0,
    )


def judge_request(question: Request, world: World) -> Outcome:
    """One CONNECT of an accepted peer."""
    server = _current(world, question.server, question.uid)
    source = parties.at(world, question.source, question.peer)
    if server is None:
        return _refuse(source, parties.missing(question.server), *_gone(question.server), question, UNAVAILABLE)
    destination = Party.of(server, server.identity(world.mesh.trust_domain))
    if question.to not in server.addresses:
        why = f":authority names {question.to}, which is not an address of {server.key}"
        return _refuse(source, destination, "wrong_authority", why, question, BAD_REQUEST)
    verdict = policy.decide(
        world, server, peer=question.peer, source=question.source, to=question.to, port=question.port
    )
    service = parties.service(world, server, question.port, question.service)
    return _outcome(verdict, source, destination, service, question)


def judge_plaintext(question: Plaintext, world: World, host: Collection[IPAddress]) -> Outcome:
    """`host`: this node's own addresses, where kubelet's probes come from.

    The kernel leaves probes to the application; here are only those from an address that it was not told of yet.
    """
    server = _current(world, question.server, question.uid)
    source = parties.at(world, question.source)
    if server is None:
        return _refuse(source, parties.missing(question.server), *_gone(question.server), question, UNAVAILABLE)
    destination = Party.of(server)
    if question.to not in server.addresses:
        why = f"{question.to} is not an address of {server.key}"
        return _refuse(source, destination, "wrong_address", why, question, UNAVAILABLE)
    verdict = policy.decide(
        world,
        server,
        peer=None,
        source=question.source,
        to=question.to,
        port=question.port,
        node_local=question.source in host,
    )
    return _outcome(verdict, source, destination, parties.service(world, server, question.port), question)


def _current(world: World, key: str, uid: str) -> Workload | None:
    """The workload, unless a namesake took its place since the question was first asked."""
    workload = world.workloads.get(key)
    return workload if workload is not None and workload.uid == uid else None


def _gone(key: str) -> tuple[str, str]:
    return "unknown_workload", f"pod {key} is not, or no longer, in the mesh's configuration"


def rule_of(allow: policy.Allow) -> str:
    """As records show it."""
    return "; dry run: ".join([allow.rule, *allow.dry_run])


def _outcome(
    verdict: policy.Allow | policy.Deny, source: Party, destination: Party, service: str, question: Request | Plaintext
) -> Outcome:
    match verdict:
        case policy.Deny():
            rule = f"{verdict.rule}: {verdict.why}" if verdict.rule not in verdict.why else verdict.why
            return _refuse(source, destination, verdict.reason, rule, question, DENIED, verdict.deps, service)
        case policy.Allow():
            return Outcome(
                verdict=abi.Verdict.CARRY,
                flow=_flow(source, destination, "", rule_of(verdict), question, service),
                deps=_deps(question) | verdict.deps,
                targets=(Target(question.to, question.port, 1),),
                show_client=True,
            )


def _refuse(
    source: Party,
    destination: Party,
    reason: str,
    why: str,
    question: Request | Plaintext,
    status: int,
    deps: frozenset[str] = frozenset(),
    service: str = "",
) -> Outcome:
    return Outcome(
        verdict=abi.Verdict.REFUSE,
        flow=_flow(source, destination, reason, why, question, service),
        deps=_deps(question) | deps,
        status=status,
    )


def _deps(question: Request | Plaintext) -> frozenset[str]:
    namespace = question.server.partition("/")[0]
    return frozenset({f"wl:{question.server}", f"svcs:{namespace}", f"ip:{question.source}", "mesh"})


def _flow(
    source: Party, destination: Party, reason: str, rule: str, question: Request | Plaintext, service: str
) -> Flow:
    tunnel = isinstance(question, Request)
    return Flow(
        reporter="destination",
        source=source,
        destination=destination,
        service=service,
        verdict="deny" if reason else "allow",
        rule=rule,
        reason=reason,
        path="tunnel" if tunnel else "plaintext",
        security="mutual_tls" if tunnel else "unknown",
    )
