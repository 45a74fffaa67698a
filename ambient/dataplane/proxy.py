"""The engine's questions answered: messages in, decisions asked, messages out. The only place that knows both sides.

World, pods and certificates are given; nothing here watches or loads them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from ambient.dataplane import abi, endings, headers, inbound, outbound, parties, waiting, wire
from ambient.dataplane.decisions import Decision, Decisions, Revision
from ambient.dataplane.health import Health
from ambient.dataplane.link import Link
from ambient.dataplane.pods import LocalPods, role_of, tunnel_id
from ambient.dataplane.questions import (
    Hop,
    Outbound,
    Outcome,
    Peer,
    Plaintext,
    Question,
    Request,
    Target,
    label,
    read_label,
)
from ambient.dataplane.ways import Ways
from ambient.dataplane.wire import Message
from ambient.identity.svid import UntrustedPeer, read_peer
from ambient.model import samenode
from ambient.model.mesh import TUNNEL_PORT, IPAddress
from ambient.model.world import World
from ambient.observe.records import Ending, Flow, Party

# What a choice fails for that says nothing about the endpoint: this side had not what it takes to reach it.
_OURS = frozenset({abi.Reason.NO_SOCKET, abi.Reason.NO_CONTEXT, abi.Reason.NO_ANSWER, abi.Reason.RESOURCES})
log = logging.getLogger(__name__)

SAMPLE_USES = 64  # a sampled service is sampled again after this many connections


class Observer(Protocol):
    """Where records and measurements go."""

    def ended(self, flow: Flow, ending: Ending) -> None: ...
    def handshake(self, seconds: float) -> None: ...
    def dial_failed(self, reason: str) -> None: ...


class Sender(Protocol):
    """The engines, as far as answers need them."""

    def send(self, *messages: Message) -> None: ...
    def restock(self, link: Link, cookie: int, want: int) -> None: ...


class Proxy:
    def __init__(
        self,
        world: World,
        pods: LocalPods,
        observer: Observer,
        *,
        first_id: int,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """`clock`: monotonic seconds."""
        self.world = world
        self.host: frozenset[IPAddress] = frozenset()
        self.decisions = Decisions(self.judge, first_id, self._recheck)
        self.ways: Ways | None = None
        self._here = outbound.NOWHERE
        self._repeats = False  # engines repeat what an earlier agent answered, until we can be asked
        self.waiting = waiting.Waiting()
        self._engine: Sender | None = None
        self._pods, self._observer = pods, observer
        self._clock, self._rng, self._health = clock, rng, Health()
        self._aside: dict[IPAddress, frozenset[str]] = {}  # what depends on the endpoints that pause

    def serve(self, engine: Sender) -> None:
        self._engine = engine

    def let_pass(self, ways: Ways, captured: Callable[[str], int | None]) -> None:
        """From now on the kernel does by itself what it may. `captured`: a pod's netns cookie, by workload key."""
        self.ways, self._here = ways, outbound.Here(captured=captured, aside=ways.ended.aside)

    def judge(self, question: Question) -> Outcome:
        match question:
            case Outbound():
                avoid, rng = self._health, self._rng
                return outbound.judge(question, self.world, avoid=avoid, rng=rng, host=self.host, here=self._here)
            case Plaintext():
                return inbound.judge_plaintext(question, self.world, self.host)
            case Peer():
                return inbound.judge_peer(question, self.world)
            case Request():
                return inbound.judge_request(question, self.world)

    def _recheck(self, question: Outbound, hop: Hop) -> samenode.Direct | samenode.Indirect:
        return outbound.recheck(question, hop, self.world)

    # The World

    def know_host(self, addresses: frozenset[IPAddress]) -> None:
        """The node's own addresses: what was judged of those that are new or gone is judged again."""
        changed, self.host = self.host ^ addresses, addresses
        if changed:
            tokens = frozenset(f"ip:{ip}" for ip in changed)
            self.touched(tokens)
            self.waiting.touched(tokens)

    def touched(self, tokens: Iterable[str]) -> None:
        """Judge again what depends on these."""
        self.revise(self.decisions.touched(tokens))

    def revise(self, revision: Revision) -> None:
        """Tell kernel and engine what they must forget, and what must end."""
        if self.ways is not None:
            self.ways.withdraw(revision.forget)  # before anything else: see ways.py
            self.ways.cut(revision)
        if self._engine is None:
            return
        cut = {decision.id for decision in revision.cut}
        for number in revision.forget:
            if number in cut:
                self._engine.send(Message(abi.Type.CUT, abi.Cut(answer=number, reason=abi.Reason.CUT)))
            elif not self._repeats or self._is_bared(number):
                self._engine.send(Message(abi.Type.FORGET, abi.Ref(id=number)))

    def _is_bared(self, number: int) -> bool:
        """An earlier agent let it out in the clear, which now it must not be."""
        found = self.decisions.get(number)
        if found is None or found.outcome is None or not isinstance(found.question, Outbound):
            return False
        return found.flow.path == "plaintext" != found.outcome.flow.path

    def inherit(self, rows: list[Message]) -> None:
        """Take over the decisions of an earlier agent: their records are ours, and what is denied now ends now.

        What is not denied, nor dialled in the clear for want of news, the engines repeat until judge_all(): pods need
        not be known here.
        """
        for row in rows:
            if isinstance(row.body, abi.AnswerRow):
                text = row.tail[: row.body.label_len]
                question: Question | None
                try:
                    question, flow = read_label(text)
                except ValueError as error:
                    log.error("cutting what an earlier agent let in, for nobody can judge it again: %s", error)  # noqa: TRY400
                    question, flow = None, _UNREADABLE
                self.decisions.inherit(row.body.answer, question, flow)
        self._repeats = True
        self.revise(self.decisions.rejudge_all())

    def judge_all(self) -> None:
        """From now on no answer of an earlier agent's is repeated, and what it let through is judged again."""
        self._repeats = False
        if self._engine is not None:
            self._engine.send(Message(abi.Type.FORGET, abi.Ref(id=0)))
        self.revise(self.decisions.rejudge_all())

    # The engine's messages

    def on_message(self, link: Link, message: Message) -> None:
        match message.body:
            case abi.Conn() as conn:
                self._ended(link, conn, message.tail[: conn.text_len].decode(errors="replace"))
            case abi.Accepted() as accepted:
                self._accepted(link, accepted)
            case abi.TunnelQuestion() as tunnel:
                self._tunnel(link, tunnel, message.tail)
            case abi.Request() as request:
                self._request(link, request, message.tail)
            case abi.DialFailed() as failed:
                self._dial_failed(failed)
            case abi.PodRef() as pod:
                if self._engine is not None:
                    self._engine.restock(link, pod.pod, pod.want)
            case _:
                raise wire.ProtocolError(f"{message.type.name} came where a question was expected")

    def _accepted(self, link: Link, accepted: abi.Accepted) -> None:
        pod = self._pods.of_listener(accepted.listener)
        to, port = wire.read_addr(accepted.to)
        if pod is None:
            self._refuse(link, accepted.question, "this pod is no more in the mesh", "unknown_workload")
        elif role_of(accepted.listener) is abi.Role.OUTBOUND:
            self._answer(link, accepted.question, pod.cookie, Outbound(pod.workload, pod.uid, pod.cookie, to, port))
        else:
            source, _ = wire.read_addr(accepted.from_)
            self._answer(link, accepted.question, pod.cookie, Plaintext(pod.workload, pod.uid, source, to, port))

    def _tunnel(self, link: Link, asked: abi.TunnelQuestion, tail: bytes) -> None:
        self._observer.handshake(asked.handshake_ns / 1e9)
        pod = self._pods.of_listener(asked.listener)
        outward = asked.target != 0
        remote, _ = wire.read_addr(asked.to if outward else asked.from_)
        if outward:
            client = self.world.workload_at(wire.read_addr(asked.from_)[0])
            pod = self._pods.of_workload(client.key) if client else None
        if pod is None:
            self._refuse(link, asked.question, "this pod is no more in the mesh", "unknown_workload")
            return
        try:
            peer = read_peer(tail[: asked.cert_len], self.world.mesh.trust_domain)
        except UntrustedPeer as error:
            self._refuse(link, asked.question, str(error), error.reason)
            return
        if outward and tunnel_id(pod.cookie, remote, peer.identity) != asked.target:
            why = f"{remote} was dialled for another identity than {peer.identity}, which answered"
            self._refuse(link, asked.question, why, "stranger")
            return
        self._answer(link, asked.question, pod.cookie, Peer(pod.workload, pod.uid, outward, remote, peer.identity))

    def _request(self, link: Link, asked: abi.Request, tail: bytes) -> None:
        pod = self._pods.of_listener(asked.listener)
        accepted = self.decisions.get(asked.peer)
        try:
            found = headers.parse(tail[: asked.headers_len])
            to, port = headers.authority(found.get(":authority", ""))
        except headers.BadHeader as error:
            self._refuse(link, asked.question, str(error), "bad_request", inbound.BAD_REQUEST)
            return
        if pod is None or accepted is None or not isinstance(accepted.question, Peer):
            self._refuse(link, asked.question, "the tunnel's peer is not known to this agent", "unknown_peer")
            return
        if port == TUNNEL_PORT:
            self._refuse(link, asked.question, "a tunnel leads to no tunnel", "bad_request", inbound.UNAVAILABLE)
            return
        source, _ = wire.read_addr(asked.from_)
        peer = accepted.question.identity
        server = self.world.workloads.get(pod.workload)
        claimed = headers.forwarded_host(found.get("forwarded", ""))
        service = parties.service(self.world, server, port, claimed) if server else ""
        self._answer(link, asked.question, pod.cookie, Request(pod.workload, pod.uid, peer, source, to, port, service))

    def _dial_failed(self, failed: abi.DialFailed) -> None:
        ip, port = wire.read_addr(failed.dial)
        decision = self.decisions.get(failed.answer)
        self._observer.dial_failed(abi.reason_name(failed.reason))
        services = _services(decision) if decision else frozenset()
        if services and failed.reason not in _OURS:  # else nothing to choose among, or another would fail as well
            self._pause(ip, port, services)

    def _pause(self, ip: IPAddress, port: int, services: frozenset[str]) -> None:
        back = self._health.failed(ip, port, self._clock())
        if back is not None:
            self._aside[ip] = services
            self.touched(services)
            asyncio.get_running_loop().call_later(max(0.0, back - self._clock()), self._pauses_over)

    def answered(self, decision: Decision, ip: IPAddress, port: int, did: bool) -> None:
        """An endpoint that the kernel chose did, or did not."""
        if did and not self._health.quiet:
            self._health.worked(ip, port)
        elif not did and (services := _services(decision)):
            self._observer.dial_failed("dial")
            self._pause(ip, port, services)

    def _pauses_over(self) -> None:
        for ip in self._health.tick(self._clock()):
            self.touched(self._aside.pop(ip, frozenset()))

    def _ended(self, link: Link, conn: abi.Conn, text: str) -> None:
        decision = self.decisions.get(conn.answer)
        if conn.setup_ns and conn.dialled.port and not self._health.quiet:
            self._health.worked(*wire.read_addr(conn.dialled))
        note = self.decisions.take_note(conn.answer)
        flow = endings.flow_of(conn, decision.flow_of(conn.reason) if decision else None, note, self.world, self._pods)
        self._observer.ended(flow, endings.ending(conn, text, link.engine))
        link.seen()

    # Answers

    def _answer(self, link: Link, question_id: int, cookie: int, question: Question) -> None:
        """Now, or when the World has what the question lacks."""
        now = partial(self._decide, link, question_id, cookie, question)
        if not self.waiting.hold(cookie, lambda: waiting.lacks(question, self.world, self.host), now):
            now()

    def _decide(self, link: Link, question_id: int, cookie: int, question: Question) -> None:
        decision = self.decisions.decide(question)
        kernel = self.ways is not None and self.ways.put(decision)
        link.send(_message(question_id, cookie, decision, beside_kernel=kernel))
        self.revise(self.decisions.too_many())

    def _refuse(self, link: Link, question_id: int, why: str, reason: str, status: int = inbound.DENIED) -> None:
        """Refuse what is not even a question: the record is made of the engine's facts and this sentence."""
        body = abi.Answer(
            question=question_id, answer=self.decisions.note(why, reason), verdict=abi.Verdict.REFUSE, status=status
        )
        link.send(Message(abi.Type.ANSWER, body))


def _services(decision: Decision) -> frozenset[str]:
    return frozenset(token for token in decision.deps if token.startswith("svc:"))


def _message(question_id: int, cookie: int, decision: Decision, *, beside_kernel: bool) -> Message:
    assert decision.question is not None
    assert decision.outcome is not None
    outcome = decision.outcome
    targets = outcome.beside_kernel() if beside_kernel else outcome.targets
    text = label(decision.question, decision.flow)
    host, baggage = outcome.host.encode(), outcome.baggage.encode()
    body = abi.Answer(
        question=question_id,
        answer=decision.id,
        pod=cookie,
        verdict=outcome.verdict,
        flags=abi.AnswerFlag.REMEMBER | (abi.AnswerFlag.SHOW_CLIENT if outcome.show_client else 0),
        status=outcome.status,
        uses=SAMPLE_USES if outcome.sampled else 0,
        choices=len(targets),
        label_len=len(text),
        baggage_len=len(baggage),
        host_len=len(host),
    )
    choices = b"".join(_choice(target) for target in targets)
    return Message(abi.Type.ANSWER, body, choices + text + baggage + host)


def _choice(target: Target) -> bytes:
    end = wire.addr(target.ip, target.port)
    if not target.tunnel:
        return bytes(abi.Choice(dial=end, weight=target.weight))
    return bytes(
        abi.Choice(
            dial=wire.addr(target.ip, TUNNEL_PORT),
            authority=end,
            target=target.tunnel,
            context=target.context,
            weight=target.weight,
            flags=abi.ChoiceFlag.VIA_TUNNEL,
        )
    )


_UNREADABLE = Flow(
    reporter="source",
    source=Party(),
    destination=Party(),
    service="",
    verdict="allow",
    rule="decided by an agent of another version",
    reason="",
    path="tunnel",
    security="unknown",
)
