"""What in a World contradicts itself, told of every object that has part in it. Pure; where objects are written is not
known here.

Fields are those of Kubernetes' manifests: that is where a user has to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ambient.model.tables import Tables

CLAIMS = {  # what a claim's prefix stands for, and the field that made it
    "wl": ("Pod", "status.podIPs"),
    "svc": ("Service", "spec.clusterIPs"),
    "node": ("Node", "status.addresses"),
}


@dataclass(frozen=True, slots=True, order=True)
class Contradiction:
    kind: str
    key: str  # namespace/name, or the name of what has no namespace
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}: {self.field}: expected {self.expected}, found {self.found}"


def within(tables: Tables) -> list[Contradiction]:
    """All of them, sorted."""
    return sorted([*_shared_addresses(tables), *_missing_nodes(tables)])


def _shared_addresses(tables: Tables) -> Iterator[Contradiction]:
    for ip in tables.contested:
        owners = []
        for claim in tables.claims[ip]:
            prefix, _, key = claim.partition(":")
            owners.append((*CLAIMS[prefix], key))
        for kind, field, key in owners:
            others = sorted(f"{other} {name}" for other, _, name in owners if (other, name) != (kind, key))
            have = "has" if len(others) == 1 else "have"
            yield Contradiction(
                kind, key, field, "an address of its own", f"{ip}, which {' and '.join(others)} {have} too"
            )


def _missing_nodes(tables: Tables) -> Iterator[Contradiction]:
    for node, keys in tables.on_node.items():
        if node and node not in tables.nodes:  # without a node: not scheduled yet
            for key in keys:
                yield Contradiction("Pod", key, "spec.nodeName", "a Node that exists", repr(node))
