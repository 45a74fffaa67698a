"""What the kernel tells of a connection past the engine, to its access record: who it was, what said so, how it ended.

Pure. Of a decision of ours the record says what was decided; of an earlier agent's, what the World says of its ends.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import replace

from ambient.capture import direct
from ambient.capture.abi import Kind
from ambient.capture.direct import Alike, Ended, Outcome
from ambient.dataplane import outbound, parties, wire
from ambient.dataplane.decisions import Decision
from ambient.dataplane.pods import LocalPods
from ambient.dataplane.questions import Hop, Outbound, Way
from ambient.model import samenode
from ambient.model.world import World
from ambient.observe.records import Ending, Flow, Party

# As the engine's reasons (engine/abi.h) where it has one for the same.
_REASONS = {
    Outcome.REFUSED: "refused",
    Outcome.FAILED: "dial",
    Outcome.UNADMITTED: "unadmitted",
    Outcome.CLOSED: "closed",
    Outcome.RESET_CLIENT: "reset_client",
    Outcome.RESET_SERVER: "reset_server",
    Outcome.DESTROYED: "cut",
    Outcome.TIMED_OUT: "timeout",
}
UNADMITTED = "answered past the server's socket lookup"
_EARLIER = "decided by an earlier agent"


def realtime_offset() -> int:
    """To make CLOCK_REALTIME of the kernel's times, in ns."""
    return time.time_ns() - time.monotonic_ns()


def endings(alike: Alike, them: Sequence[Ended], offset: int) -> list[Ending]:
    """Of connections that ended alike; `offset`: realtime_offset()."""
    host, dialled, to, reason, error = _told(alike)
    return [
        Ending(
            f"direct-{started:x}-{port:x}",
            f"{host}{port}" if host else "",
            dialled,
            to,
            started + offset,
            ended - started,
            established - started if established else 0,
            sent,
            received,
            reason,
            error,
        )
        for _, port, started, established, ended, sent, received in them
    ]


@functools.lru_cache(512)  # as there are of these
def _told(alike: Alike) -> tuple[str, str, str, str, int]:
    host, dialled, to = f"{wire.host(alike.source)}:", wire.show(*alike.dialled), wire.show(*alike.destination)
    if alike.outcome is Outcome.REFUSED:
        host = to = ""
    return host, dialled, to, _REASONS[alike.outcome], alike.error


def still_open(flow: direct.Flow, offset: int, carried: tuple[int, int]) -> Ending:
    """Of one that lives, as at its begin. `carried`: bytes so far, out and in."""
    started = flow.started_ns
    return Ending(
        f"direct-{started:x}-{flow.source[1]:x}",
        wire.show(*flow.source),
        wire.show(*flow.dialled),
        wire.show(*flow.destination),
        started + offset,
        0,
        flow.established_ns - started if flow.established_ns else 0,
        *carried,
        reason="open",
    )


def flow_of(flow: direct.Flow, outcome: Outcome, decision: Decision) -> Flow:
    """What the record says of it."""
    hop = decision.way.direct(*flow.destination) if decision.way is not None else None
    found = hop.flow if hop is not None and hop.flow is not None else decision.flow
    if outcome is Outcome.DESTROYED:
        if (cut := decision.cut_hops.get(flow.destination)) is not None:
            return cut
        if decision.cut is not None:
            return replace(found, verdict="deny", rule=decision.cut.rule, reason=decision.cut.reason)
    if outcome is Outcome.UNADMITTED:
        return replace(found, verdict="deny", rule=UNADMITTED, reason="unadmitted")
    return found


def inherited(flow: direct.Flow, world: World, pods: LocalPods) -> tuple[Outbound | None, Flow, Way]:
    """An earlier agent's connection as a decision of ours. None: its client is nobody's any more, so nobody can judge.

    The kernel names network namespaces, which say who it is without any label.
    """
    client = pods.of_cookie(flow.client)
    workload = world.workloads.get(client.workload) if client else None
    source = Party.of(workload, client.identity) if workload and client else parties.at(world, flow.source[0])
    seen = Flow(
        reporter="source",
        source=source,
        destination=parties.at(world, flow.destination[0]),
        rule=_EARLIER,
        path="none" if flow.kind is Kind.REFUSE else "plaintext",
        verdict="deny" if flow.kind is Kind.REFUSE else "allow",
        reason="refused" if flow.kind is Kind.REFUSE else "",
    )
    question = Outbound(client.workload, client.uid, client.cookie, *flow.dialled) if client else None
    hops = (_hop(flow, question, seen, world, pods),) if flow.kind is Kind.DIRECT else ()
    return question, seen, Way(kind=flow.kind, hops=hops)


def _hop(flow: direct.Flow, question: Outbound | None, seen: Flow, world: World, pods: LocalPods) -> Hop:
    ip, port = flow.destination
    server = pods.of_cookie(flow.server) if flow.server else None
    about = replace(seen, reporter="destination", path="direct")
    hop = Hop(ip=ip, port=port, weight=1, cookie=flow.server or -1, flow=about)
    if server is None:
        return hop
    hop = replace(hop, server=server.workload, uid=server.uid)
    judged = outbound.recheck(question, hop, world) if question else None
    if question and isinstance(judged, samenode.Direct):
        client, host = world.workloads[question.client], world.workloads[server.workload]
        hop = outbound.direct_hop(world, client, host, hop, server.cookie, judged, world.service_at(question.to))
    return hop
