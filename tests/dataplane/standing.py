"""A stand-in for the kernel's side of the direct path: the tables as dictionaries, and a ring that is a list."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from ambient.capture.abi import Kind
from ambient.capture.direct import Alike, Ended, Endpoint, Flow, Outcome, Place, Verdict
from ambient.capture.errors import CaptureError, TableFullError


class Kernel:
    """Like capture.direct.Direct. `said`: what was asked of it, in order."""

    def __init__(self, most: int = 100) -> None:
        self.verdicts: dict[tuple[int, Place], Verdict] = {}
        self.live: list[Flow] = []
        self.bytes: dict[Flow, tuple[int, int]] = {}  # of those of whom something can be said
        self.ring: list[Ended] = []
        self.said: list[str] = []
        self.lease = 0.0  # seconds
        self.fails = 0  # so many times destroy() does
        self.failure: Exception = CaptureError("not now")
        self.misses = 0  # so many times it does not find what is there
        self.late = 0  # so many times it finds a server's end, made when its client's was gone
        self._most = most
        self._readable = os.eventfd(0, os.EFD_SEMAPHORE)

    def put(self, client: int, dialled: Place, verdict: Verdict) -> None:
        if len(self.verdicts) >= self._most:
            raise TableFullError("no room")
        self.verdicts[client, dialled] = verdict
        self.said.append("put")

    def delete(self, client: int, dialled: Place) -> bool:
        self.said.append("delete")
        return self.verdicts.pop((client, dialled), None) is not None

    def clear(self) -> None:
        self.said.append("clear")
        self.verdicts.clear()

    def renew(self, seconds: float) -> None:
        self.lease = seconds

    def flows(self) -> list[Flow]:
        self.said.append("flows")
        return list(self.live)

    def carried(self, flows: Iterable[Flow]) -> dict[Flow, tuple[int, int]]:
        return {flow: self.bytes[flow] for flow in flows if flow in self.bytes}

    def destroy(self, flows: Iterable[Flow]) -> int:
        if self.fails:
            self.fails -= 1
            raise self.failure
        doomed = [flow for flow in flows if flow in self.live]
        self.said.append(f"destroy {len(doomed)}")
        if self.misses:
            self.misses -= 1
            return 0
        for flow in doomed:
            self.end(flow, Outcome.DESTROYED)
        if not doomed and self.late:
            self.late -= 1
            return 1
        return len(doomed)

    def fileno(self) -> int:
        return self._readable

    def read(self, take: Callable[[Ended], None], limit: int) -> int:
        count = 0
        while self.ring and count < limit:
            os.eventfd_read(self._readable)
            take(self.ring[0])
            self.ring.pop(0)
            count += 1
        return count

    def close(self) -> None:
        os.close(self._readable)

    # What pods do

    def connect(self, client: int, source: Place, dialled: Place, endpoint: Place | None = None) -> Flow | None:
        """A connection; None: captured. `endpoint`: the one that falls to it. Raises PermissionError."""
        verdict = self.verdicts.get((client, dialled))
        if verdict is None:
            return None
        chosen = _chosen(verdict, endpoint)
        flow = Flow(
            client=client,
            server=chosen.server if chosen else None,
            number=verdict.number,
            kind=verdict.kind,
            source=source,
            destination=(chosen.ip, chosen.port) if chosen else dialled,
            dialled=dialled,
            started_ns=1_000,
            established_ns=2_000,
            admitted=chosen is not None,
            sealed=False,
        )
        if verdict.kind is Kind.REFUSE:
            self.end(replace(flow, established_ns=None), Outcome.REFUSED)
            raise PermissionError
        if chosen and chosen.server is None:
            return None
        self.live.append(flow)
        return flow

    def end(
        self,
        flow: Flow,
        outcome: Outcome = Outcome.CLOSED,
        *,
        sent: int = 0,
        got: int = 0,
        error: int = 0,
        after_ns: int = 5_000_000,
    ) -> None:
        if flow in self.live:
            self.live.remove(flow)
        self.ring.append(ended(flow, outcome, error, flow.started_ns + after_ns, sent, got))
        os.eventfd_write(self._readable, 1)


def ended(flow: Flow, outcome: Outcome, error: int, ended_ns: int, sent: int, got: int) -> Ended:
    alike = _alike(
        flow.client,
        flow.server,
        flow.number,
        flow.kind,
        flow.source[0],
        flow.destination,
        flow.dialled,
        flow.admitted,
        flow.sealed,
        outcome,
        error,
    )
    return Ended(alike, flow.source[1], flow.started_ns, flow.established_ns or 0, ended_ns, sent, got)


_alike = functools.cache(Alike)  # the same ones are one, as of the kernel's


def _chosen(verdict: Verdict, endpoint: Place | None) -> Endpoint | None:
    return next((each for each in verdict.endpoints if endpoint in (None, (each.ip, each.port))), None)
