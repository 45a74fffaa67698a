"""A fake agent: attached to every worker of an engine, it answers by a table of callables and keeps what is reported.

It has no opinions: what to answer is in `handlers`, which tests replace.
"""

from __future__ import annotations

import array
import itertools
import os
import pathlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from ambient.dataplane import abi, wire

from . import pki, process, verdicts
from .apps import PATIENCE

_ANCILLARY = socket.CMSG_SPACE(abi.FDS_MAX * array.array("i").itemsize)
_QUESTIONS = (abi.Type.ACCEPTED, abi.Type.TUNNEL, abi.Type.REQUEST)
_numbers = itertools.count(1)  # of answers: never the same twice, whichever agent gives it

Handler = Callable[[verdicts.Question], verdicts.Verdict | None]

SETTINGS = {
    "connect_ms": 2000,
    "handshake_ms": 2000,
    "request_ms": 2000,
    "answer_ms": 5000,
    "keepalive_s": 60,
    "tunnel_idle_s": 60,
    "max_streams": 4096,
    "elephant_bytes": 4 << 20,
    "retries": 2,
    "flags": 0,
}


class Agent:
    """handlers: by question type; None as a verdict leaves the question open for a later answer().

    questions, ended, dial_failures, idle, rows: what came, in order. lost: workers whose socket ended.
    """

    def __init__(self, run_dir: pathlib.Path, workers: int, handlers: Mapping[abi.Type, Handler] | None = None) -> None:
        self.handlers = dict(handlers or {})  # from the start: what waited for an agent is asked at once
        self.restock = True
        self.questions: list[verdicts.Question] = []
        self.answers: dict[int, verdicts.Verdict] = {}
        self.ended: list[verdicts.Ended] = []
        self.dial_failures: list[abi.DialFailed] = []
        self.stash_low: list[abi.PodRef] = []
        self.idle: list[int] = []
        self.hello: dict[int, abi.Hello] = {}
        self.rows: list[tuple[int, wire.Message]] = []
        self.lost: set[int] = set()
        self.errors: list[BaseException] = []
        self._family = socket.AF_INET
        self._changed = threading.Condition()
        self._sending = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._links: dict[int, socket.socket] = {}
        for worker in range(workers):
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.settimeout(PATIENCE)
            link.connect(os.fspath(process.door(run_dir, worker)))
            self._links[worker] = link
            self._selector.register(link, selectors.EVENT_READ, worker)
        self._dying = False
        self._thread = threading.Thread(target=self._run, name=f"agent of {run_dir.name}", daemon=True)
        self._thread.start()
        self.wait(lambda: len(self.hello) == workers, "HELLO of every worker")

    # What the agent says

    def send(self, *messages: wire.Message, worker: int | None = None) -> None:
        """To every worker, or one."""
        for packet in wire.pack(messages):
            self.send_packet(bytes(packet.data), packet.fds, worker=worker)

    def send_packet(self, data: bytes, fds: Iterable[int] = (), *, worker: int | None = None) -> None:
        """Any bytes at all, as one packet."""
        rights = array.array("i", fds)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        with self._sending:
            for link in self._links.values() if worker is None else [self._links[worker]]:
                link.sendmsg([data], ancillary)

    def settings(self, **changes: int) -> None:
        self.send(wire.Message(abi.Type.SETTINGS, abi.Settings(**(SETTINGS | changes))))

    def pod(self, pod: int, *, want: int = 32, family: socket.AddressFamily = socket.AF_INET) -> None:
        """Introduce a pod and fill its stash."""
        self._family = family
        self.send(wire.Message(abi.Type.POD, abi.Pod(pod=pod, stash_family=family, stash_want=want)))
        for worker in self._links:
            self.stash(pod, want, worker=worker)

    def stash(self, pod: int, count: int, *, worker: int) -> None:
        while count > 0:
            batch = [socket.socket(self._family, socket.SOCK_STREAM) for _ in range(min(count, abi.FDS_MAX))]
            count -= len(batch)
            for sock in batch:
                sock.setblocking(False)
            message = wire.Message(abi.Type.STASH, abi.PodRef(pod=pod), fds=[sock.fileno() for sock in batch])
            try:
                self.send(message, worker=worker)
            except (BrokenPipeError, ConnectionResetError):  # it asked, and has left in good order meanwhile
                return
            finally:
                for sock in batch:
                    sock.close()

    def context(self, number: int, leaf: pki.Leaf, *, expires_ns: int | None = None) -> None:
        body = abi.Context(
            context=number,
            expires_at=leaf.expires_ns if expires_ns is None else expires_ns,
            cert_len=len(leaf.cert_pem),
            key_len=len(leaf.key_pem),
            roots_len=len(leaf.roots_pem),
        )
        self.send(wire.Message(abi.Type.CONTEXT, body, leaf.cert_pem + leaf.key_pem + leaf.roots_pem))

    def keep_contexts(self, *numbers: int) -> None:
        """Have all others forgotten."""
        self.send(
            wire.Message(
                abi.Type.CONTEXTS, abi.Contexts(count=len(numbers)), struct.pack(f"={len(numbers)}Q", *numbers)
            )
        )

    def listen(self, number: int, sock: socket.socket, role: abi.Role, *, pod: int = 1, context: int = 0) -> None:
        body = abi.Listen(listener=number, pod=pod, context=context, role=role)
        self.send(wire.Message(abi.Type.LISTEN, body, fds=[sock.fileno()]))

    def answer(self, question: verdicts.Question, verdict: verdicts.Verdict) -> int:
        number = next(_numbers)
        body, tail = verdicts.pack_answer(question.body.question, number, verdict)
        self.answers[number] = verdict
        self.send(wire.Message(abi.Type.ANSWER, body, tail), worker=question.worker)
        return number

    def drain(self, timeout_s: int = 0) -> None:
        self.send(wire.Message(abi.Type.DRAIN, abi.Drain(timeout_s=timeout_s)))

    def refer(self, kind: abi.Type, number: int) -> None:
        """FORGET, UNLISTEN or LEAVE something."""
        self.send(wire.Message(kind, abi.Ref(id=number)))

    def cut(self, answer: int, reason: abi.Reason = abi.Reason.CUT) -> None:
        self.send(wire.Message(abi.Type.CUT, abi.Cut(answer=answer, reason=reason)))

    def inventory(self, *, listeners: bool = True) -> list[tuple[int, wire.Message]]:
        """All rows of all workers; also proof that all said before was read. close() closes their descriptors."""
        number = next(_numbers)
        first = len(self.rows)
        self.send(wire.Message(abi.Type.INVENTORY, abi.Inventory(id=number, answers=1, conns=1, listeners=listeners)))

        def ends() -> int:
            return sum(row.type is abi.Type.ROW_END and row.body.id == number for _, row in self.rows[first:])

        self.wait(lambda: ends() == len(self._links), "ROW_END of every worker")
        return [(worker, row) for worker, row in self.rows[first:] if row.type is not abi.Type.ROW_END]

    # What the agent hears

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Wait until something that came makes `condition` true."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"not within {timeout:g} s: {what}; ended: {self.ended[-5:]}; {self.errors}")

    def await_ended(self, count: int = 1, *, timeout: float = PATIENCE) -> list[verdicts.Ended]:
        """Wait for so many records (in all, since the attachment)."""
        self.wait(lambda: len(self.ended) >= count, f"{count} records, {len(self.ended)} came", timeout)
        return list(self.ended)

    def await_dial_failures(self, count: int = 1) -> list[abi.DialFailed]:
        """Told at once, but not waited for by the connection that then succeeds elsewhere."""
        self.wait(lambda: len(self.dial_failures) >= count, f"{count} failed dials")
        return list(self.dial_failures)

    def await_questions(self, kind: abi.Type, count: int = 1) -> Sequence[verdicts.Question]:
        self.wait(lambda: len(self.asked(kind)) >= count, f"{count} questions {kind.name}")
        return self.asked(kind)

    def asked(self, kind: abi.Type) -> list[verdicts.Question]:
        return [question for question in self.questions if question.kind is kind]

    def _run(self) -> None:
        try:
            while self._selector.get_map():
                for key, _ in self._selector.select():
                    self._receive(key.data)
        except BaseException as error:  # noqa: BLE001 kept for the test's thread, which raises it in close()
            with self._changed:
                self.errors.append(error)
                self._changed.notify_all()

    def _receive(self, worker: int) -> None:
        link = self._links[worker]
        try:
            data, ancillary, _, _ = link.recvmsg(abi.PACKET_MAX, _ANCILLARY, 0x40000000)  # MSG_CMSG_CLOEXEC
        except ConnectionResetError:  # it left bytes of ours unread
            data, ancillary = b"", []
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        if not data:
            self._selector.unregister(link)
        messages = wire.unpack(data, fds).messages
        with self._changed:
            if not data:
                self.lost.add(worker)
            fresh = [self._note(worker, message) for message in messages]
            self._changed.notify_all()
        for question in fresh:
            if question is not None and not self._dying and (handler := self.handlers.get(question.kind)):
                verdict = handler(question)
                if verdict is not None:
                    self.answer(question, verdict)

    def _note(self, worker: int, message: wire.Message) -> verdicts.Question | None:
        body, tail = message.body, message.tail
        match body:
            case abi.Hello():
                assert worker not in self.hello or body.leaving, "two HELLOs"
                self.hello[worker] = body
            case abi.TunnelQuestion():
                return self._ask(verdicts.Question(message.type, worker, body, cert=tail[: body.cert_len]))
            case abi.Request():
                headers = verdicts.read_headers(tail[: body.headers_len])
                return self._ask(verdicts.Question(message.type, worker, body, headers=headers))
            case abi.Accepted():
                return self._ask(verdicts.Question(message.type, worker, body))
            case abi.Conn() if message.type is abi.Type.ENDED:
                self.ended.append(verdicts.Ended(worker, body, tail[: body.text_len].decode()))
            case abi.DialFailed():
                self.dial_failures.append(body)
            case abi.PodRef() if message.type is abi.Type.IDLE:
                self.idle.append(body.pod)
            case abi.PodRef():
                self.stash_low.append(body)
                if self.restock and not self._dying:
                    self.stash(body.pod, body.want, worker=worker)
            case _:
                self.rows.append((worker, message))
        return None

    def _ask(self, question: verdicts.Question) -> verdicts.Question:
        self.questions.append(question)
        return question

    # The end

    def close(self) -> None:
        """Die, having heard all that was said until then. Raises what went wrong in the agent's thread.

        Reading is shut down first: what the engine says from then on fails on its side, so that every record reaches
        either this agent or the next, and tests can count.
        """
        if self._dying:
            return
        self._dying = True
        for worker, link in self._links.items():
            if worker not in self.lost:
                link.shutdown(socket.SHUT_RD)
        self._thread.join(PATIENCE)
        self._selector.close()
        for link in self._links.values():
            link.close()
        for _, row in self.rows:
            for fd in row.fds:
                os.close(fd)
        self.rows.clear()
        if self.errors:
            raise self.errors[0]
