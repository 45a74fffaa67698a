"""Questions that are asked before the World can know the answer: a new pod is often faster than the news of it.

The first connection of a pod that has just started would be refused because nobody has heard of its address yet. Such
a question is kept for a moment, and judged when what it lacks has come, or when its time is over by what is known then.
Refusals come later, nothing more is allowed. How many are kept is bounded: beyond that they are judged at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass

from ambient.dataplane.questions import Outbound, Peer, Plaintext, Question, Request
from ambient.model import route
from ambient.model.mesh import IPAddress
from ambient.model.world import World

# A watch takes milliseconds, kubelet up to a second to tell an address. The other side gives its CONNECT 5 s
# (EngineSettings.request_ms) and the engine its question 10 s: a refusal still gets there, with its reason.
LONGEST_S = 4.0
MOST = 1_000  # at once: some first connections of each pod that a node starts; more is a flood
MOST_OF_ONE = 250  # pod: one that dials every address of a network does not keep the others' questions from waiting


def lacks(question: Question, world: World, host: Container[IPAddress] = ()) -> str:
    """The token of what the World must learn before the question can be judged well; empty: nothing is missing.

    host: the node's own addresses.
    """
    match question:
        case Peer(pod=key, uid=uid):
            owners = len(world.claims(question.remote))  # two: it is used again, and one of them is gone
            return _lacks_pod(world, key, uid) or ("" if owners == 1 else f"ip:{question.remote}")
        case Outbound(client=key, uid=uid, to=to, port=port):
            if token := _lacks_pod(world, key, uid):
                return token
            return f"ip:{to}" if route.awaited(world, world.workloads[key], to, port, host=host) else ""
        case Plaintext(server=key, uid=uid) | Request(server=key, uid=uid):
            return _lacks_pod(world, key, uid)


def _lacks_pod(world: World, key: str, uid: str) -> str:
    workload = world.workloads.get(key)
    return "" if workload is not None and workload.uid == uid else f"wl:{key}"


@dataclass(eq=False, slots=True)
class _Held:
    cookie: int
    token: str
    lacks: Callable[[], str]
    judge: Callable[[], None]
    over: asyncio.TimerHandle | None = None


class Waiting:
    """Knows neither World nor engine: what a question lacks, and how it is judged, is called."""

    def __init__(self) -> None:
        self._by_token: dict[str, list[_Held]] = {}
        self._by_cookie = Counter[int]()

    def __len__(self) -> int:
        return self._by_cookie.total()

    def hold(self, cookie: int, lacks: Callable[[], str], judge: Callable[[], None]) -> bool:
        """Keep a question that lacks something and judge it later, once. `cookie`: its pod's.

        False: it lacks nothing, or too many wait.
        """
        token = lacks()
        if not token or len(self) >= MOST or self._by_cookie[cookie] >= MOST_OF_ONE:
            return False
        held = _Held(cookie, token, lacks, judge)
        held.over = asyncio.get_running_loop().call_later(LONGEST_S, self._release, held)
        self._keep(held)
        return True

    def touched(self, tokens: frozenset[str]) -> None:
        """The World changed in these: who lacked one of them may be judged now, or lacks something else."""
        for held in [held for token in tokens & self._by_token.keys() for held in self._by_token[token]]:
            now = held.lacks()
            if not now:
                self._release(held)
            elif now != held.token:
                self._drop(held)
                held.token = now
                self._keep(held)

    def _release(self, held: _Held) -> None:
        self._drop(held)
        if held.over is not None:
            held.over.cancel()
        held.judge()

    def _keep(self, held: _Held) -> None:
        self._by_token.setdefault(held.token, []).append(held)
        self._by_cookie[held.cookie] += 1

    def _drop(self, held: _Held) -> None:
        others = self._by_token[held.token]
        others.remove(held)
        self._by_cookie[held.cookie] -= 1
        if not self._by_cookie[held.cookie]:
            del self._by_cookie[held.cookie]
        if not others:
            del self._by_token[held.token]
