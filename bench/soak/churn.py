"""What comes and goes while the load goes on: pods with an identity and connections of their own, and policies."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from bench.disruption import loads
from bench.disruption.scene import Scene
from tests.mesh.cluster import NODES
from tests.mesh.manifests import Manifest, mtls, pod, policy, principal, traffic

PODS = 4  # of one generation, on both nodes; two generations overlap
NAMES = 3  # generations until names come again, as they do of a StatefulSet: metrics are kept by name, for hours


@dataclass(slots=True)
class Came:
    pods: int = 0
    policies: int = 0
    failure: BaseException | None = None  # then no more come


def name(number: int, i: int) -> str:
    return f"guest{number % NAMES}n{i}"


def generation(number: int, to: str) -> list[Manifest]:
    """New pods: UIDs, namespaces, addresses, keys. Each keeps connections and opens others."""
    dial = f"sleep infinity | {loads.build()} dial {to} {loads.PORT} 2 2 0"
    return [pod(name(number, i), NODES[i % 2], "sh", "-c", dial) for i in range(PODS)]


def rules(number: int) -> list[Manifest]:
    """Policies that change with each generation, and that the load is allowed by."""
    guests = [{"source": {"principals": [principal(name(number, i)), principal("driver")]}} for i in range(PODS)]
    return [
        policy(
            f"some{number % 3}", "DENY", app="far", rules=[{"from": guests, "to": [{"operation": {"ports": ["9"]}}]}]
        ),
        mtls("STRICT", name="port", app="near", ports={7000 + number % 7: "PERMISSIVE"}),
        traffic("out", app="driver", unknownDestinations=["Allow", "Refuse"][number % 2]),
    ]


@contextlib.contextmanager
def going_on(scene: Scene) -> Iterator[Came]:
    """Generation after generation, as fast as the mesh takes them, until the block ends. Raises what went wrong."""
    came, over = Came(), threading.Event()
    worker = threading.Thread(target=_run, args=(scene, came, over))
    worker.start()
    try:
        yield came
    finally:
        over.set()
        worker.join()
    if came.failure:
        raise came.failure


def _run(scene: Scene, came: Came, over: threading.Event) -> None:
    mesh, old = scene.mesh, list[Manifest]()
    to = mesh.ip("shop/far")
    try:
        for number in itertools.count():
            if over.is_set():
                break
            fresh, changed = generation(number, to), rules(number)
            mesh.apply([*fresh, *changed])
            if old:
                mesh.delete([*old, rules(number - 1)[0]])
            old = fresh
            came.pods += len(fresh)
            came.policies += len(changed)
        mesh.delete([*old, *rules(number - 1)])
    except BaseException as error:  # noqa: BLE001 - raised where the block ends
        came.failure = error
