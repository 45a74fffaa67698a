"""From one pod's event to the next World costs what changed, not what there is: counted, for few pods and for many."""

from __future__ import annotations

import functools
from typing import Any

from ambient.model.world import World
from ambient.sources.inventory import Inventory
from ambient.sources.kubernetes import kinds
from ambient.sources.kubernetes.ledger import Changes, Ledger
from ambient.sources.kubernetes.outcomes import Outcomes
from ambient.sources.kubernetes.wire import Change, Event
from tests import costs

PODS = kinds.CORE[3]
SMALL, LARGE = 200, 3_200
CHANGES = 40


def a_pod(number: int, *, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": f"p{number}", "namespace": f"ns{number // 10}", "uid": f"u{number}"},
        "spec": {"nodeName": f"n{number // 10}", "containers": []},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": f"10.1.{number // 256}.{number % 256}"}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def applied(inventory: Inventory, changes: Changes, revision: str) -> Inventory:
    upserts = [(ref, found) for ref, found in changes.items() if found is not None]
    return inventory.apply(upserts, [ref for ref, found in changes.items() if found is None], revision=revision)


def test_a_pods_event_costs_what_changed() -> None:
    def cost(pods: int) -> costs.Cost:
        ledger = Ledger(PODS, Outcomes())
        ledger.started()
        ledger.found(map(a_pod, range(pods)), "v1")
        inventory = applied(Inventory(World()), ledger.listed(), "first")
        assert len(inventory.world.workloads) == pods

        def change(number: int) -> None:
            nonlocal inventory
            event = Event(Change.MODIFIED, a_pod(number, ready=False), str(number))
            inventory = applied(inventory, ledger.happened([event], "v1"), str(number))

        found = costs.of_all(functools.partial(change, number) for number in range(CHANGES))
        assert not any(inventory.world.workloads[f"ns{n // 10}/p{n}"].ready for n in range(CHANGES))
        return found

    small, large = cost(SMALL), cost(LARGE)
    assert large.steps < small.steps * 1.5
    assert large.peak_bytes < small.peak_bytes * 3  # a copy of a table would be 16 times as large
