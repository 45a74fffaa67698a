"""Questions wait for news they lack, in bounds of time and number, and are judged once."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable

import pytest

from ambient.dataplane import abi, waiting, wire
from ambient.dataplane.pods import listener_id
from ambient.dataplane.proxy import Proxy
from ambient.dataplane.questions import Outbound, Peer, Plaintext, Question, Request
from ambient.dataplane.waiting import Waiting
from ambient.model.mesh import Node, address
from ambient.model.world import World, diff
from tests.dataplane.proxied import Link, Records
from tests.dataplane.worlds import CLIENT_IP, NODE_2, WEB, WEB_IP, WEB_VIP, a_pod, a_world, the_pods

NEW_IP = address("10.1.0.99")
KEY, UID = "shop/client", "uid-client"


@pytest.mark.parametrize(
    ("question", "token"),
    [
        (Peer(KEY, UID, False, WEB_IP, WEB), ""),
        (Peer(KEY, UID, False, NEW_IP, WEB), f"ip:{NEW_IP}"),
        (Peer(KEY, UID, True, NEW_IP, WEB), f"ip:{NEW_IP}"),
        (Peer(KEY, UID, False, NODE_2, WEB), ""),
        (Peer(KEY, UID, False, WEB_VIP, WEB), ""),
        (Peer("shop/new", "uid-new", False, WEB_IP, WEB), "wl:shop/new"),
        (Peer(KEY, "uid of its successor", False, WEB_IP, WEB), "wl:shop/client"),
        (Outbound(KEY, UID, 100, NEW_IP, 80), ""),
        (Outbound("shop/new", "uid-new", 100, WEB_IP, 80), "wl:shop/new"),
        (Plaintext("shop/new", "uid-new", WEB_IP, CLIENT_IP, 80), "wl:shop/new"),
        (Plaintext(KEY, UID, NEW_IP, CLIENT_IP, 80), ""),
        (Request("shop/new", "uid-new", WEB, WEB_IP, CLIENT_IP, 80), "wl:shop/new"),
        (Request(KEY, UID, WEB, WEB_IP, CLIENT_IP, 80), ""),
    ],
)
def test_what_a_question_lacks_is_its_own_pod_or_the_peers_address(question: Question, token: str) -> None:
    assert waiting.lacks(question, a_world()) == token


def test_an_address_with_two_owners_lacks_the_news_that_one_is_gone() -> None:
    world = a_world(a_pod("web2", WEB_IP, "node-2"))
    assert waiting.lacks(Peer(KEY, UID, False, WEB_IP, WEB), world) == f"ip:{WEB_IP}"


ROOM = Node(name="roomy", pod_networks=(ipaddress.ip_network("10.1.0.0/24"),))


@pytest.mark.parametrize(
    ("question", "token"),
    [
        (Outbound(KEY, UID, 100, NEW_IP, 80), f"ip:{NEW_IP}"),
        (Outbound(KEY, UID, 100, WEB_IP, 80), ""),
        (Outbound(KEY, UID, 100, address("10.1.1.1"), 80), ""),
        (Outbound("shop/new", "uid-new", 100, NEW_IP, 80), "wl:shop/new"),
    ],
)
def test_an_address_of_a_pod_network_lacks_its_pod(question: Question, token: str) -> None:
    assert waiting.lacks(question, a_world(ROOM)) == token
    assert waiting.lacks(question, a_world(ROOM), {NEW_IP}) in ("", "wl:shop/new"), "the node's own lacks nobody"


class Scene:
    """Waiting questions that lack what the test says, and which were judged."""

    def __init__(self) -> None:
        self.waiting, self.missing, self.judged = Waiting(), dict[str, str](), list[str]()

    def hold(self, name: str, token: str, pod: int = 7) -> bool:
        self.missing[name] = token
        return self.waiting.hold(pod, lambda: self.missing[name], lambda: self.judged.append(name))


def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
    asyncio.run(scene(Scene()))  # type: ignore[arg-type]


def test_who_lacks_nothing_is_not_held() -> None:
    async def scene(it: Scene) -> None:
        assert not it.hold("a", "")
        assert len(it.waiting) == 0

    play(scene)


def test_news_releases_exactly_those_it_is_for() -> None:
    async def scene(it: Scene) -> None:
        assert [it.hold("a", "ip:1"), it.hold("b", "ip:1"), it.hold("c", "ip:2")] == [True] * 3
        it.missing["a"] = ""  # b's news is not what it lacks
        it.waiting.touched(frozenset({"ip:1", "wl:x"}))
        assert (it.judged, len(it.waiting)) == (["a"], 2)
        it.missing["b"] = it.missing["c"] = ""
        it.waiting.touched(frozenset({"ip:1", "ip:2"}))
        assert (sorted(it.judged), len(it.waiting)) == (["a", "b", "c"], 0)
        it.waiting.touched(frozenset({"ip:1", "ip:2"}))
        assert len(it.judged) == 3, "each is judged once"

    play(scene)


def test_one_may_lack_a_second_thing_then() -> None:
    async def scene(it: Scene) -> None:
        it.hold("a", "wl:x")
        it.missing["a"] = "ip:1"
        it.waiting.touched(frozenset({"wl:x"}))
        it.missing["a"] = ""
        it.waiting.touched(frozenset({"wl:x"}))
        assert it.judged == []
        it.waiting.touched(frozenset({"ip:1"}))
        assert it.judged == ["a"]

    play(scene)


def test_when_the_time_is_over_it_is_judged_by_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LONGEST_S", 0.05)

    async def scene(it: Scene) -> None:
        it.hold("a", "ip:1")
        it.hold("b", "ip:1")
        it.missing["b"] = ""
        it.waiting.touched(frozenset({"ip:1"}))
        assert it.judged == ["b"]
        await asyncio.sleep(0.1)
        assert (it.judged, len(it.waiting)) == (["b", "a"], 0)

    play(scene)


def test_beyond_the_bound_nobody_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST", 2)

    async def scene(it: Scene) -> None:
        assert [it.hold(name, f"ip:{name}") for name in "abc"] == [True, True, False]
        it.missing["a"] = ""
        it.waiting.touched(frozenset({"ip:a"}))
        assert it.hold("d", "ip:d"), "there is room again"

    play(scene)


def test_one_pod_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_OF_ONE", 2)

    async def scene(it: Scene) -> None:
        assert [it.hold(name, f"ip:{name}", pod=1) for name in "abc"] == [True, True, False]
        assert it.hold("d", "ip:d", pod=2)
        it.missing["a"] = ""
        it.waiting.touched(frozenset({"ip:a"}))
        assert it.hold("e", "ip:e", pod=1), "there is room again"

    play(scene)


def test_a_refusal_still_arrives_before_the_other_side_gives_up() -> None:
    from ambient.config import EngineSettings

    settings = EngineSettings()
    assert settings.request_ms - 1000 >= waiting.LONGEST_S * 1000
    assert settings.answer_ms > waiting.LONGEST_S * 1000


# In the proxy


class Setup:
    def __init__(self) -> None:
        self.world, self.link = a_world(), Link()
        pods = the_pods(self.world)
        self.proxy = Proxy(self.world, pods, Records(), first_id=1, clock=lambda: 0.0, rng=random.Random(1))
        self.proxy.serve(self.link)  # type: ignore[arg-type]
        (self.pod,) = pods

    def ask(self, remote: object) -> None:
        """As a tunnel question comes to be, without its certificate."""
        question = Peer(self.pod.workload, self.pod.uid, False, remote, WEB)  # type: ignore[arg-type]
        self.proxy._answer(self.link, 5, self.pod.cookie, question)  # type: ignore[arg-type]

    def dial(self, to: object) -> None:
        self.proxy._answer(self.link, 6, self.pod.cookie, Outbound(KEY, UID, self.pod.cookie, to, 8080))  # type: ignore[arg-type]

    def change(self, world: World) -> None:
        touched = diff(self.world, world).touched()
        self.world = self.proxy.world = world
        self.proxy.revise(self.proxy.decisions.touched(touched))
        self.proxy.waiting.touched(touched)


def test_a_new_pods_first_tunnel_is_accepted_when_its_address_is_known() -> None:
    async def scene() -> None:
        setup = Setup()
        setup.ask(NEW_IP)
        assert setup.link.sent == []
        setup.change(setup.world.replace([a_pod("other", address("10.1.0.50"))], revision="2"))
        assert setup.link.sent == [], "that was not it"
        setup.change(setup.world.replace([a_pod("web-2", NEW_IP, "node-2", service_account="web")], revision="3"))
        answer = setup.link.answer()
        assert (answer.question, answer.verdict) == (5, abi.Verdict.ACCEPT)

    asyncio.run(scene())


def test_a_stranger_is_refused_by_name_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LONGEST_S", 0.02)

    async def scene() -> None:
        setup = Setup()
        setup.ask(NEW_IP)
        await asyncio.sleep(0.05)
        answer = setup.link.answer()
        assert (answer.verdict, answer.status) == (abi.Verdict.REFUSE, 401)
        decision = setup.proxy.decisions.get(answer.answer)
        assert decision is not None
        assert decision.flow.reason == "unknown_source"

    asyncio.run(scene())


def test_a_new_pod_is_dialled_when_it_is_known_and_not_in_the_clear() -> None:
    async def scene() -> None:
        setup = Setup()
        setup.change(setup.world.replace([ROOM], revision="2"))
        setup.dial(NEW_IP)
        assert setup.link.sent == []
        setup.change(setup.world.replace([a_pod("web-2", NEW_IP, "node-2", service_account="web")], revision="3"))
        answer = setup.link.answer()
        assert (answer.question, answer.verdict) == (6, abi.Verdict.CARRY)
        decision = setup.proxy.decisions.get(answer.answer)
        assert decision is not None
        assert (decision.flow.path, decision.flow.destination.principal) == ("tunnel", "cluster.local/ns/shop/sa/web")

    asyncio.run(scene())


def test_an_address_of_a_pod_network_is_refused_by_name_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LONGEST_S", 0.02)

    async def scene() -> None:
        setup = Setup()
        setup.change(setup.world.replace([ROOM], revision="2"))
        setup.dial(NEW_IP)
        await asyncio.sleep(0.05)
        answer = setup.link.answer()
        decision = setup.proxy.decisions.get(answer.answer)
        assert decision is not None
        assert (answer.verdict, decision.flow.reason) == (abi.Verdict.REFUSE, "unknown_pod")

    asyncio.run(scene())


def test_an_address_that_turns_out_to_be_the_nodes_own_is_dialled_as_it_is() -> None:
    async def scene() -> None:
        setup = Setup()
        setup.change(setup.world.replace([ROOM], revision="2"))
        setup.dial(NEW_IP)
        assert setup.link.sent == []
        setup.proxy.know_host(frozenset({NEW_IP}))
        assert setup.link.answer().verdict == abi.Verdict.CARRY

    asyncio.run(scene())


def test_an_identity_that_is_another_pods_is_refused_at_once() -> None:
    async def scene() -> None:
        setup = Setup()
        setup.ask(CLIENT_IP)
        assert setup.link.answer().verdict == abi.Verdict.REFUSE

    asyncio.run(scene())


def test_a_captured_pod_that_the_world_has_not_yet_may_dial_when_it_has() -> None:
    async def scene() -> None:
        setup = Setup()
        known = setup.world.workloads[KEY]
        setup.change(setup.world.replace(removals=[(type(known), KEY)], revision="2"))
        body = abi.Accepted(
            question=9,
            listener=listener_id(setup.pod.cookie, abi.Role.OUTBOUND),
            from_=wire.addr(CLIENT_IP, 40000),
            to=wire.addr(WEB_VIP, 80),
        )
        setup.proxy.on_message(setup.link, wire.Message(abi.Type.ACCEPTED, body))  # type: ignore[arg-type]
        assert setup.link.sent == []
        setup.change(setup.world.replace([known], revision="3"))
        assert setup.link.answer().verdict == abi.Verdict.CARRY

    asyncio.run(scene())
