"""Pods that come and go under load: the same scenario for a namespace with and without the mesh, and what failed in it.

A standing pod is behind the service all the time, so that each request has somewhere to go. Servers leave as well-kept
ones do: they serve for a while after they were told to end, until nobody sends them anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.cluster.manifests import Manifest, pod, server, service
from tests.cluster.space import Space
from tests.mesh.waiting import eventually

NAME = "web"
CLIENTS = {"near": "node1", "far": "node2"}
STANDING = "standing"
LINGER_S = 4  # kube-proxy and the agents hear of an end within a second, on a busy machine within two
FEW, MANY = 4, 20
SETTLED_S = 120
PAUSE_S = 0.005  # between two requests of a client


@dataclass(frozen=True)
class Load:
    worked: int
    failed: list[str]  # how, one for each request that did


def lingering(made: Manifest) -> Manifest:
    """The pod, with manners."""
    made["spec"]["terminationGracePeriodSeconds"] = LINGER_S + 1
    made["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": LINGER_S}}}
    return made


def deployment(replicas: int) -> Manifest:
    """Servers, wherever the scheduler puts them."""
    made = lingering(server(NAME, ""))
    template = {"metadata": {"labels": {"app": NAME, "from": "deployment"}}, "spec": made["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
    }


def furnish(space: Space) -> None:
    """The service, its standing pod and the clients."""
    space.apply(service(NAME))
    clients = (pod(name, on) for name, on in CLIENTS.items())
    space.run(server(STANDING, "node2", labels={"app": NAME}), *clients)
    with space.puppet("near") as near:
        eventually("the service answers", lambda: not near.ask(NAME).error, within=30)


@contextlib.contextmanager
def load(space: Space) -> Iterator[list[Load]]:
    """New connections to the service from both nodes during the block; the list has what became of them."""
    vip, found = space.get("service", NAME)["spec"]["clusterIP"], []
    with contextlib.ExitStack() as stack:
        puppets = [stack.enter_context(space.puppet(name)) for name in CLIENTS]
        for puppet in puppets:
            puppet.do("newcomers", name="load", to=vip, port=80, pause=PAUSE_S)
        for puppet in puppets:
            puppet.do("fresh", name="load", times=20)
        yield found
        for puppet in puppets:
            puppet.do("fresh", name="load", times=20)
            done = puppet.do("finish", name="load")
            found.append(Load(done.worked, done.failed))


def scaled(space: Space, replicas: int) -> None:
    """Return when so many are Ready and the others gone."""
    space.kubectl("scale", f"--replicas={replicas}", f"deployment/{NAME}")
    settled(space, replicas)


def settled(space: Space, replicas: int) -> None:
    space.kubectl("rollout", "status", f"deployment/{NAME}", f"--timeout={SETTLED_S}s")
    eventually(f"{replicas} pods", lambda: len(pods(space)) == replicas, within=SETTLED_S)


def pods(space: Space) -> list[str]:
    """Of the Deployment, those that end included."""
    found = space.cluster.get("pods", "--namespace", space.name, "--selector=from=deployment")["items"]
    return [each["metadata"]["name"] for each in found]


def a_rollout(space: Space) -> None:
    space.kubectl("rollout", "restart", f"deployment/{NAME}")
    settled(space, FEW)


def scaling(space: Space) -> None:
    for replicas in (0, MANY, 0, FEW):
        scaled(space, replicas)


def deletion(space: Space) -> None:
    """Half of the pods, twice; others take their places."""
    for _ in range(2):
        space.kubectl("delete", "pod", *pods(space)[: FEW // 2])
        settled(space, FEW)


KILLS = 3


def sudden_deletion(space: Space) -> None:
    """Pods that are gone before anybody hears of it."""
    for _ in range(KILLS):
        space.kubectl("delete", "pod", "--force", "--grace-period=0", *pods(space)[: FEW // 2])
        settled(space, FEW)


SUDDEN = "sudden deletion"
TORN = KILLS * len(CLIENTS)  # each client waits for one answer, which a server that is killed may tear
SCENARIOS: dict[str, Callable[[Space], None]] = {
    "a rollout": a_rollout,
    "scaling": scaling,
    "deletion": deletion,
    SUDDEN: sudden_deletion,
}
