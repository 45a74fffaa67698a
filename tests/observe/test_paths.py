"""How many connections of a namespace took which path."""

from __future__ import annotations

from ambient.observe.paths import Paths
from ambient.observe.records import Ending, Flow, Party

CLIENT = Party(namespace="shop", workload="client", address="10.0.0.2")
WEB = Party(namespace="shop", workload="web", address="10.0.0.3")
OUT = Flow(reporter="source", source=CLIENT, destination=WEB, path="tunnel")
IN = Flow(reporter="destination", source=CLIENT, destination=WEB, path="tunnel")


def an_ending(second: int) -> Ending:
    return Ending(connection="1", started_ns=second * 10**9, source=f"10.0.0.2:{second}", dialled="10.0.0.3:15008")


def rows(paths: Paths, *live: Flow, namespace: str = "shop") -> list[tuple[object, ...]]:
    return [(row["direction"], row["path"], row["ended"], row["open"]) for row in paths.of(namespace, live)]


def test_each_end_counts_where_its_agent_saw_it() -> None:
    paths = Paths()
    for flow in (OUT, IN, IN):
        paths.ended(flow, an_ending(1))
    assert rows(paths) == [("in", "tunnel", 2, 0), ("out", "tunnel", 1, 0)]
    assert rows(paths, namespace="other") == []


def test_open_connections_are_counted_beside_those_that_ended() -> None:
    paths = Paths()
    paths.ended(IN, an_ending(1))
    plain = Flow(reporter="destination", source=Party(address="192.0.2.9"), destination=WEB)
    denied = Flow(reporter="destination", source=CLIENT, destination=WEB, verdict="deny")
    assert rows(paths, IN, IN, plain, denied) == [("in", "tunnel", 1, 2), ("in", "plaintext", 0, 1)]


def test_what_leaves_the_mesh_is_passthrough_and_what_was_refused_is_neither() -> None:
    paths = Paths()
    outside = Flow(reporter="source", source=CLIENT, destination=Party(address="192.0.2.9"))
    node = Flow(reporter="source", source=CLIENT, destination=Party(workload="node/a", address="192.0.2.1"))
    legacy = Flow(reporter="source", source=CLIENT, destination=Party(namespace="old", workload="db"))
    denied = Flow(reporter="source", source=CLIENT, verdict="deny", path="none")
    for flow in (outside, node, legacy, denied):
        paths.ended(flow, an_ending(1))
    assert rows(paths) == [("out", "plaintext", 1, 0), ("out", "passthrough", 2, 0), ("out", "refused", 1, 0)]


def test_the_last_one_is_named() -> None:
    paths = Paths()
    for second in (1, 2):
        paths.ended(IN, an_ending(second))
    (row,) = paths.of("shop", [])
    assert (row["last"], row["last_peer"]) == ("1970-01-01T00:00:02.000Z", "shop/client 10.0.0.2:2")
