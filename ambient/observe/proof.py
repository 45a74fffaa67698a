"""Is mutual TLS really on for a namespace? Judges what agents testify; pure, and asks nobody.

Proven means: no TCP connection reaches a pod of the namespace without mutual TLS, and none goes from one to another pod
of the mesh without; but between pods of one node the kernel's own knowledge of both ends will do. Whatever nobody could
look at counts as a problem: silence proves nothing. What the mesh cannot promise by design (probes, what pods dial
outside it) is a note; that it is about TCP alone is said in the proof.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Evidence = Mapping[str, Any]
UTC_FORM = "%Y-%m-%dT%H:%M:%SZ"
SHOWN = 3  # of many names; the rest is counted


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    about: str  # a pod, a node, or the namespace
    claim: str  # stable: agent, configuration, pods, enrolled, captured, certificate, strict, refusal, excluded, clear
    found: str
    todo: str


@dataclass(frozen=True, slots=True)
class Proof:
    namespace: str
    pods: Sequence[Mapping[str, Any]]  # those whose node's agent spoke for them
    paths: Sequence[Mapping[str, Any]]
    problems: Sequence[Problem]
    notes: Sequence[str]

    @property
    def proven(self) -> bool:
        return not self.problems


def judge(
    namespace: str,
    testimonies: Collection[Evidence],
    now: datetime,
    *,
    expected: Collection[str] | None = None,
    node: str | None = None,
) -> Proof:
    """`expected`: the pods (namespace/name) that somebody else knows of; None: nobody was asked.

    `node`: only its pods are judged; None: all of the namespace.
    """
    pods = sorted((pod for row in testimonies for pod in row["pods"]), key=lambda pod: str(pod["pod"]))
    problems = [problem for row in testimonies if row["pods"] for problem in _of_agent(row)]
    unheard = {} if node else _unheard(testimonies)
    for key, where in unheard.items():
        problems.append(_not_heard(key, where, bool(where) and where in {row["node"] for row in testimonies}))
    if not pods and not unheard and not expected:
        there = any(row["known"] for row in testimonies)
        found = f"it has no pods{f' on node {node}' if node else ''}" if there else "no agent knows this namespace"
        problems.append(Problem(namespace, "pods", found, "nothing can be proven of nobody: is the name right?"))
    for key in sorted(set(expected or ()) - {row["pod"] for row in pods} - unheard.keys()):
        problems.append(Problem(key, "pods", "Kubernetes has this pod, no agent knows it", "see the agents' log"))
    for pod in pods:
        problems += _of_pod(pod, now)
    notes = [f"only the pods of node {node} were judged"] if node else []
    notes += _limits([pod for pod in pods if pod["enrolled"] and not pod["host_network"]])
    notes += _left_in_the_clear(testimonies, namespace)
    return Proof(namespace, pods, _added(testimonies), sorted(set(problems)), list(dict.fromkeys(notes)))


def _unheard(testimonies: Iterable[Evidence]) -> dict[str, str]:
    """Pods that agents know of and that no agent speaks for, with their nodes; sorted."""
    own = {pod["pod"] for row in testimonies for pod in row["pods"]}
    known = {key: where for row in testimonies for where, keys in row["elsewhere"].items() for key in keys}
    return {key: known[key] for key in sorted(known.keys() - own)}


def _not_heard(pod: str, node: str, answered: bool) -> Problem:
    if answered:
        return Problem(
            pod, "agent", f"the agent of its node {node} does not know it", "try again; see that agent's log"
        )
    if not node:
        return Problem(pod, "agent", "it is on no node yet", "wait until it is scheduled, or delete it")
    found = f"it is on node {node}, from which no agent answered"
    return Problem(pod, "agent", found, f"start or repair the agent of node {node}")


def _of_agent(row: Evidence) -> Iterator[Problem]:
    """What casts doubt on all that an agent says."""
    node = row["node"]
    for error in row["errors"]:
        found = f"an older configuration is in force, the newest has an error: {error}"
        yield Problem(f"node {node}", "configuration", found, "mend it: `ambient check -f FILE` says what is expected")
    for blocker in row["blockers"]:
        if not blocker.startswith("pod "):  # said of the pod itself, or not this namespace's business
            yield Problem(f"node {node}", "agent", f"its agent is not ready: {blocker}", "see the agent's log")


def _of_pod(pod: Mapping[str, Any], now: datetime) -> Iterator[Problem]:
    key = pod["pod"]
    if pod["host_network"]:
        found = "it uses the node's own network, which the mesh leaves alone"
        yield Problem(key, "enrolled", found, "give it a network of its own, or move it to another namespace")
        return
    if not pod["enrolled"]:
        namespace = key.partition("/")[0]
        todo = f"kubectl label namespace {namespace} ambient.dev/mode=enabled; or take the pod's own label away"
        yield Problem(key, "enrolled", "it is not in the mesh", todo)
        return
    if pod["state"] != "captured":
        why = pod["state"] or "its node's agent has not come to it yet"
        yield Problem(key, "captured", f"its traffic is not captured: {why}", "see the agent's log, and try again")
        return
    yield from _certificate(key, pod["identity"], pod["certificate"], now)
    yield from _strict(key, pod)
    for direction in ("inbound", "outbound"):
        if excluded := pod[f"exclude_{direction}"]:
            found = f"its annotation ambient.dev/exclude-{direction}-… keeps {_list(excluded)} out of the mesh"
            yield Problem(key, "excluded", found, "take the annotation away")
    if pod["clear"] is None:
        yield Problem(key, "clear", "its connections could not be looked at", "try again; see the agent's log")
    for direction, word, todo in (
        ("in", "from", "end it: it is older than the capture, or was let in by an earlier policy"),
        ("out", "to", "restart the client, so that it connects anew"),
    ):
        there = [c for c in pod["clear"] or () if c["direction"] == direction and _matters(c)]
        if there:
            shown = first([f"{c['peer']} (port {c['port']})" for c in there])
            yield Problem(key, "clear", f"open now outside any tunnel: {word} {shown}", todo)


def _matters(connection: Mapping[str, Any]) -> bool:
    """In: all but probes. Out: only what could have gone through a tunnel. Never what the kernel vouches for."""
    if connection["kind"] == "direct":
        return False
    return bool(connection["kind"] == "mesh" or (connection["direction"] == "in" and connection["kind"] != "probe"))


def _certificate(key: str, identity: str, row: Mapping[str, Any] | None, now: datetime) -> Iterator[Problem]:
    todo = "`ambient get certificates` and the agent's log say what the CA answers"
    if row is None or not row["not_after"]:
        error = f": {row['error']}" if row and row["error"] else ""
        yield Problem(key, "certificate", f"it has no certificate for {identity}{error}", todo)
    elif datetime.strptime(row["not_after"], UTC_FORM).replace(tzinfo=UTC) <= now:
        yield Problem(key, "certificate", f"its certificate for {identity} expired at {row['not_after']}", todo)


def _strict(key: str, pod: Mapping[str, Any]) -> Iterator[Problem]:
    lax = [mode for mode in pod["modes"] if mode["mode"] != "STRICT"]
    for mode in lax:
        where = f"port {mode['port']}" if mode["port"] else "its ports"
        found = f"plaintext is accepted on {where}: {mode['mode']} ({mode['said_by']})"
        yield Problem(key, "strict", found, "apply a PeerAuthentication with mtls.mode STRICT to the namespace")
    if not lax and not pod["knocks"]:
        yield Problem(key, "refusal", "no plaintext connection was tried", "try again; see the agent's log")
    for knock in pod["knocks"]:
        if (knock["outcome"], knock["reason"]) == ("refused", "strict_mtls"):
            continue
        what = {
            "refused": f"was refused, but not for want of mutual TLS: {knock['reason']} ({knock['rule']})",
            "let in": f"was let in: {knock['rule']}",
            "unreachable": f"could not be made: {knock['reason']}",
        }.get(knock["outcome"], "was neither refused nor let in: nobody judged it")
        todo = "see the agent's log; `ambient explain` says what is expected"
        yield Problem(key, "refusal", f"a plaintext connection to {knock['address']} {what}", todo)


def _limits(pods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is not proven by design."""
    probed = [f"{pod['pod']} ({_list(pod['probe_ports'])})" for pod in pods if pod["probe_ports"]]
    if probed:
        yield (
            "plaintext from a pod's own node, which is how kubelet calls, reaches the ports of its probes: "
            + first(probed)
        )
    if direct(pods):
        yield (
            "between pods of one node connections are direct: the kernel knows both ends, as a certificate would say, "
            "and their bytes are not encrypted; ambient.dev/same-node: mtls has them encrypted, too"
        )
    for pod in pods:
        outside = [c["peer"] for c in pod["clear"] or () if c["direction"] == "out" and c["kind"] == "outside"]
        if outside:
            yield f"{pod['pod']} talks in plaintext to what is outside the mesh: {first(outside)}"


def direct(pods: Iterable[Mapping[str, Any]]) -> bool:
    """May any of them be dialled directly?"""
    return any(pod.get("same_node") == "direct" for pod in pods)


def first(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _left_in_the_clear(testimonies: Iterable[Evidence], namespace: str) -> Iterator[str]:
    for row in testimonies:
        for path in row["paths"]:
            if path["path"] == "plaintext" and path["ended"]:
                way = "came" if path["direction"] == "in" else "went"
                yield (
                    f"since the agent of node {row['node']} started, {path['ended']} connections {way} in plaintext, "
                    f"the last at {path['last']}: {path['last_peer']}"
                )
    if any(row["egress"] == "allowed" for row in testimonies):
        yield f"pods of {namespace} may dial what is outside the mesh, in plaintext: see docs/policy.md, on the way out"


def _added(testimonies: Iterable[Evidence]) -> list[dict[str, Any]]:
    """All agents' counts together."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in testimonies:
        for path in row["paths"]:
            total = found.setdefault((path["direction"], path["path"]), {**path, "ended": 0, "open": 0})
            total["ended"] += path["ended"]
            total["open"] += path["open"]
            if path["last"] > total["last"]:
                total["last"], total["last_peer"] = path["last"], path["last_peer"]
    return [found[key] for key in sorted(found)]


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
