"""How many connections of each namespace took which path, since this agent started. Counts; no I/O.

`direction` is the namespace's: "in" is told by the server's agent, "out" by the client's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ambient.observe.records import Ending, Flow, rfc3339

# passthrough: in the clear, to what the mesh does not know
PATHS = ("tunnel", "direct", "plaintext", "passthrough", "refused")
Key = tuple[str, str, str]  # namespace, direction, path


@dataclass(slots=True)
class _Count:
    connections: int = 0
    last: tuple[Flow, Ending] | None = None  # put into words when somebody asks, not once a connection


@dataclass(slots=True)
class Paths:
    """One entry a namespace with pods on this node, direction and path: bounded by the pods."""

    _counts: dict[Key, _Count] = field(default_factory=dict)

    def ended(self, flow: Flow, *endings: Ending) -> None:
        key = key_of(flow)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.connections += len(endings)
        count.last = (flow, endings[-1])

    def of(self, namespace: str, live: Iterable[Flow]) -> list[dict[str, object]]:
        """Rows in the order of PATHS, "in" first. `live`: flows of the connections that are open."""
        opened = Counter(
            key_of(flow) for flow in live if flow.verdict == "allow"
        )  # the refused only wait to be recorded
        rows: list[dict[str, object]] = []
        for direction in ("in", "out"):
            for path in PATHS:
                key = (namespace, direction, path)
                count = self._counts.get(key, _Count())
                if count.connections or opened[key]:
                    rows.append(
                        {
                            "direction": direction,
                            "path": path,
                            "ended": count.connections,
                            "open": opened[key],
                            "last": _when(*count.last) if count.last else "",
                            "last_peer": _peer(*count.last) if count.last else "",
                        }
                    )
        return rows


def key_of(flow: Flow) -> Key:
    inbound = flow.reporter == "destination"
    here = flow.destination if inbound else flow.source
    path: str = flow.path
    if flow.verdict == "deny":
        path = "refused"
    elif path == "plaintext" and not inbound and not flow.destination.namespace:
        path = "passthrough"
    return here.namespace, "in" if inbound else "out", path


def _when(_: Flow, ending: Ending) -> str:
    return rfc3339(ending.started_ns + ending.duration_ns)


def _peer(flow: Flow, ending: Ending) -> str:
    party = flow.source if flow.reporter == "destination" else flow.destination
    at = ending.source if flow.reporter == "destination" else ending.dialled or ending.destination
    name = f"{party.namespace}/{party.workload}" if party.namespace else party.workload
    return " ".join(filter(None, (name, at or party.address)))
