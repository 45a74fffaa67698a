"""ENDED to record: the one place where a connection becomes its access record and its metrics."""

from __future__ import annotations

import struct
from dataclasses import replace

from ambient.dataplane import abi, parties, wire
from ambient.dataplane.decisions import Note
from ambient.dataplane.pods import LocalPods, role_of
from ambient.model.world import World
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Ending, Flow, Party, Path

# Ends that mean the mesh said no, although no decision did: the record says deny and names the reason.
_REFUSALS = frozenset(
    {
        abi.Reason.NO_ANSWER,
        abi.Reason.NO_SOCKET,
        abi.Reason.NO_CONTEXT,
        abi.Reason.HANDSHAKE,
        abi.Reason.BAD_REQUEST,
        abi.Reason.PROTOCOL,
        abi.Reason.RESOURCES,
        abi.Reason.STRANGER,
    }
)
# How what was never decided came to us; from a pod of ours it came no farther.
_WAYS: dict[abi.Role, Path] = {
    abi.Role.OUTBOUND: "none",
    abi.Role.INBOUND_TUNNEL: "tunnel",
    abi.Role.INBOUND_PLAIN: "plaintext",
}


_CONN = struct.Struct("@8Q 16sI4x 16sI4x 16sI4x 8x 16s2I8x")  # abi.Conn at once: field by field costs 5 us more
_NO_TRACE = bytes(16)


def ending(conn: abi.Conn, text: str, engine: str) -> Ending:
    """`engine`: tells this engine's connection numbers from another's."""
    (
        number, _, _, start_at, duration_ns, setup_ns, sent, received,
        source, source_port, to, to_port, dialled, dialled_port, trace, reason, error,
    ) = _CONN.unpack_from(conn)  # fmt: skip
    return Ending(
        connection=f"{engine}-{number:x}",
        source=wire.show_packed(source, source_port),
        destination=wire.show_packed(to, to_port),
        dialled=wire.show_packed(dialled, dialled_port),
        started_ns=start_at,
        duration_ns=duration_ns,
        setup_ns=setup_ns,
        sent=sent,
        received=received,
        reason=abi.reason_name(reason),
        error=error,
        text=text,
        trace=trace.hex() if trace != _NO_TRACE else "",
    )


def flow_of(conn: abi.Conn, flow: Flow | None, note: Note | None, world: World, pods: LocalPods) -> Flow:
    """The decision's flow where there was a decision; else what can be said from addresses (and our note) alone."""
    if flow is None:
        flow = _undecided(conn, world, pods)
        if note is not None:
            return replace(flow, rule=note.why, reason=note.reason)
    if flow.reporter == "source" and flow.path == "tunnel" and conn.dialled.port and not conn.target:
        flow = _IN_THE_CLEAR.of(flow)
    if flow.verdict == "allow" and conn.reason in _REFUSALS:
        return replace(flow, verdict="deny", reason=abi.reason_name(conn.reason))
    return flow


def _in_the_clear(flow: Flow) -> Flow:
    """Of a decision with choices inside and outside the mesh, where the connection took one outside."""
    destination = replace(flow.destination, principal="")
    return replace(flow, path="plaintext", security="unknown", destination=destination)


_IN_THE_CLEAR = PerFlow(_in_the_clear)  # one flow for all connections of a decision


def _undecided(conn: abi.Conn, world: World, pods: LocalPods) -> Flow:
    role = role_of(conn.listener)
    local = pods.of_listener(conn.listener)
    workload = world.workloads.get(local.workload) if local else None
    here = Party.of(workload, local.identity) if workload and local else Party()
    outbound = role is abi.Role.OUTBOUND
    there = parties.at(world, wire.read_addr(conn.to if outbound else conn.from_)[0])
    return Flow(
        reporter="source" if outbound else "destination",
        source=here if outbound else there,
        destination=there if outbound else here,
        service="",
        verdict="deny",
        rule="ended before it was decided",
        reason=abi.reason_name(conn.reason),
        path=_WAYS[role],
        security="unknown",
    )
