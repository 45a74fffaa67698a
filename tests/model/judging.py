"""A server, who may call it, and what decide() says: for the tests of policies."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from ambient.model import mesh, policy
from ambient.model.mesh import Action, Match, Rule

from .builders import (
    IP,
    ROOT,
    a_node,
    a_pod,
    a_policy,
    a_rule,
    a_world,
    an_identity,
)

SERVER = a_pod("shop/web", "10.1.0.1", labels={"app": "web", "tier": "front"})
CLIENT = a_pod("front/cart-1", "10.1.0.2", service_account="cart")
CLIENT_IP = "10.1.0.2"
OTHER = a_pod("back/job-1", "10.1.0.3", service_account="job")
NODE = a_node("n1", "10.0.0.1")
FAR_NODE = a_node("n2", "10.0.0.2")
ALL = (SERVER, CLIENT, OTHER, NODE, FAR_NODE)
CART = an_identity("front/cart")


def judge(
    *policies: Any, peer: mesh.Identity | None = CART, source: str = CLIENT_IP, port: int = 8080, **more: Any
) -> Any:
    server = more.pop("server", SERVER)
    world = a_world(*ALL, *policies, **more)
    return policy.decide(world, server, peer=peer, source=IP(source), to=IP("10.1.0.1"), port=port)


def allowed(*policies: Any, **more: Any) -> bool:
    return isinstance(judge(*policies, **more), policy.Allow)


def net(text: str) -> tuple[mesh.IPNetwork, ...]:
    return (ipaddress.ip_network(text),)


EVERYBODY, NOBODY = Rule(), a_rule(Match(namespaces=("nobody",)))
ALLOW_ALL = a_policy("shop/allow-all", EVERYBODY)
ALLOW_NOTHING = a_policy("shop/allow-nothing")
ALLOW_NOBODY = a_policy("shop/allow-nobody", NOBODY)
DENY_ALL = a_policy("shop/deny-all", EVERYBODY, action=Action.DENY)
DENY_NOTHING = a_policy("shop/deny-nothing", action=Action.DENY)
DENY_NOBODY = a_policy("shop/deny-nobody", NOBODY, action=Action.DENY)
PRECEDENCE = {
    "no policy at all": ((), True),
    "ALLOW without rules denies all": ((ALLOW_NOTHING,), False),
    "DENY without rules does nothing": ((DENY_NOTHING,), True),
    "an empty rule matches everything, ALLOW": ((ALLOW_ALL,), True),
    "an empty rule matches everything, DENY": ((DENY_ALL,), False),
    "DENY goes before ALLOW": ((ALLOW_ALL, DENY_ALL), False),
    "one matching ALLOW is enough": ((ALLOW_NOBODY, ALLOW_NOTHING, ALLOW_ALL), True),
    "an ALLOW that does not match": ((ALLOW_NOBODY,), False),
    "a DENY that does not match, and no ALLOW": ((DENY_NOBODY,), True),
    "a DENY that does not match, and an ALLOW that does not": ((DENY_NOBODY, ALLOW_NOBODY), False),
    "the second rule may be the one": ((a_policy("shop/p", NOBODY, EVERYBODY),), True),
    "mesh-wide DENY beats the namespace's ALLOW": (
        (replace(DENY_ALL, namespace=ROOT), ALLOW_ALL),
        False,
    ),
    "mesh-wide ALLOW nothing with the namespace's ALLOW": ((replace(ALLOW_NOTHING, namespace=ROOT), ALLOW_ALL), True),
}
