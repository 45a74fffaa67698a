"""Clients that ask for resources by name or alias, instead of for everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.xds.names import ADDRESS
from ambient.xds.snapshot import Snapshot
from tests.model.builders import a_pod, a_service, a_world

from .transcripts import Client, Said, lines, things


def test_a_client_that_names_resources_is_told_those() -> None:
    client = Client(things(a="1", b="1"))
    assert lines(client.ask("a")) == [({"a": "1"}, [])]
    client.ack()
    assert client.news(things(a="1", b="2")) == []
    assert lines(client.news(things(a="2", b="2"))) == [({"a": "2"}, [])]


def test_a_name_that_is_not_there_is_answered_as_gone_and_told_when_it_comes() -> None:
    client = Client(things())
    assert lines(client.ask("a")) == [({}, ["a"])]
    client.ack()
    assert lines(client.news(things(a="1"))) == [({"a": "1"}, [])]
    client.ack()
    assert lines(client.news(things())) == [({}, ["a"])]


def test_asking_again_is_answered_again() -> None:
    client = Client(things(a="1"))
    client.ask("a")
    client.ack()
    assert lines(client.ask("a")) == [({"a": "1"}, [])]


def test_what_is_no_longer_wanted_is_no_longer_told() -> None:
    client = Client(things(a="1", b="1"))
    client.ask("a", "b")
    client.news(things(a="2", b="2"))
    assert client.ask(drop=["a"]) == []
    assert lines(client.ack()) == [({"b": "2"}, [])]
    client.ack()
    assert client.ask(drop=["b"]) == []
    assert client.news(things(a="3", b="3")) == []


def test_everything_can_be_asked_for_and_given_up_later() -> None:
    client = Client(things(a="1", b="1"))
    client.ask("a")
    client.ack()
    assert lines(client.ask("*")) == [({"a": "1", "b": "1"}, [])]
    client.ack()
    assert client.ask(drop=["*"]) == []
    assert client.news(things(a="1", b="2")) == []
    assert lines(client.news(things(a="2", b="2"))) == [({"a": "2"}, [])]


def test_asking_for_everything_and_giving_it_up_at_once_asks_for_nothing() -> None:
    client = Client(things(a="1"))
    assert lines(client.ask("*", drop=["*"])) == [({}, [])]
    client.ack()
    assert client.news(things(a="2")) == []


def test_a_named_resource_that_is_held_is_not_sent_again_after_a_reconnection() -> None:
    assert lines(Client(things(a="1", b="1")).ask("a", "b", have={"a": "1"})) == [({"b": "1"}, [])]


# --- Address by its aliases


POD = a_pod("shop/web-1", "10.1.0.1", labels={"app": "web"})
UID = "Kubernetes//Pod/shop/web-1"
SERVICE = "shop/web.shop.svc.cluster.local"


class OnDemand:
    """A client that asks for addresses as it meets them."""

    def __init__(self, *nouns: Any) -> None:
        self.world = a_world(*nouns)
        self.snapshot = Snapshot.of(self.world)
        self.client = Client(self.snapshot)

    def ask(self, *keys: str) -> tuple[set[str], list[str]]:
        return self._told(self.client.ask(*keys, of=ADDRESS))

    def change(self, *nouns: Any, gone: Any = ()) -> tuple[set[str], list[str]]:
        self.world = self.world.replace(nouns, gone, revision="2")
        self.snapshot, changed = self.snapshot.advance(self.world)
        self.client.stream.publish(self.snapshot, changed)
        return self._told(self.client.hear())

    def _told(self, said: list[Said]) -> tuple[set[str], list[str]]:
        assert self.client.ack() == []
        return {name for each in said for name in each.resources}, [name for each in said for name in each.removed]


def test_an_address_asked_for_is_answered_with_its_workload_and_followed() -> None:
    client = OnDemand(POD, a_pod("shop/other", "10.1.0.2"))
    assert client.ask("/10.1.0.1") == ({UID}, [])
    assert client.change(replace(POD, ready=False)) == ({UID}, [])
    assert client.change(a_pod("shop/other", "10.1.0.3")) == (set(), [])
    assert client.change(gone=[(type(POD), "shop/web-1")]) == (set(), [UID])
    assert client.change(a_pod("shop/next", "10.1.0.1")) == ({"Kubernetes//Pod/shop/next"}, [])


def test_an_address_of_nobody_is_answered_as_gone_and_told_when_it_is_somebodys() -> None:
    client = OnDemand()
    assert client.ask("/10.1.0.1") == (set(), ["/10.1.0.1"])
    assert client.change(POD) == ({UID}, [])


@pytest.mark.parametrize("key", [SERVICE, "/10.96.0.1"], ids=["by its name", "by its address"])
def test_a_service_asked_for_comes_with_its_workloads_and_those_that_join(key: str) -> None:
    client = OnDemand(POD, a_service("shop/web", "10.96.0.1"))
    assert client.ask(key) == ({SERVICE, UID}, [])
    more = a_pod("shop/web-2", "10.1.0.2", labels={"app": "web"})
    assert client.change(more) == ({"Kubernetes//Pod/shop/web-2"}, [])
    assert client.change(replace(more, labels={})) == ({"Kubernetes//Pod/shop/web-2"}, [])
    assert client.change(replace(more, ready=False, labels={})) == (set(), [])


def test_a_service_that_takes_an_address_asked_for_brings_its_workloads() -> None:
    client = OnDemand(POD, a_service("shop/web"))
    assert client.ask("/10.96.0.1") == (set(), ["/10.96.0.1"])
    assert client.change(a_service("shop/web", "10.96.0.1")) == ({SERVICE, UID}, [])
