"""`ambient.v1.Nodes`: a node's agent says which pods it has captured, and which it could not and why.

Every report is the whole state of the node and is answered once it has been acted upon. So neither side keeps what the
other would have to agree with: an agent that got no answer says it again, to whichever replica, and a lost or repeated
report does no harm. Here is what is said, and the agent's side; the control plane's is node_server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from ambient.xds.calls import Call, CallFailed
from ambient.xds.proto import nodes_pb2 as pb
from ambient.xds.retry import pause

SERVICE = "ambient.v1.Nodes"
REPEAT_S = 600.0  # what somebody else has changed in the API meanwhile is put right

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class PodRef:
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Failure:
    pod: PodRef
    reason: str  # CamelCase, of few: an Event's reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole state of one node."""

    captured: frozenset[PodRef] = frozenset()
    failures: tuple[Failure, ...] = ()


class Reporter:
    """The agent's side: tell() at any time, run() sees to it that the control plane knows."""

    def __init__(self, call: Call, *, rng: random.Random | None = None) -> None:
        self._call = call
        self._rng = rng or random.Random()
        self._news = asyncio.Event()
        self._report: Report | None = None
        self._failures = 0
        self.error = ""  # why the newest state is not known there; empty: it is

    def tell(self, report: Report) -> None:
        """The node's state from now on. Of several told in a hurry only the last one goes out."""
        if report != self._report:
            self._report = report
            self._failures = 0
            self._news.set()

    async def run(self) -> None:
        """Report until cancelled."""
        await self._news.wait()
        while True:
            self._news.clear()
            try:
                self.error = await self._send(self._report or Report())
            except (CallFailed, DecodeError) as error:
                self.error = str(error)
            if self.error:
                self._failures += 1
                _log.warning("not reported: %s", self.error)
                again = pause(self._failures, self._rng)
            else:
                self._failures = 0
                again = REPEAT_S * self._rng.uniform(0.9, 1.1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again):
                    await self._news.wait()

    async def _send(self, report: Report) -> str:
        request = pb.NodeReport(
            captured=[to_wire(pod) for pod in sorted(report.captured)],
            failures=[
                pb.CaptureFailure(pod=to_wire(each.pod), reason=each.reason, message=each.message)
                for each in report.failures
            ],
        )
        response = pb.NodeReportResponse.FromString(await self._call(f"/{SERVICE}/Report", request.SerializeToString()))
        unknown = sorted(from_wire(each) for each in response.unknown)
        if not unknown:
            return ""
        return "the control plane does not know on this node: " + ", ".join(str(pod) for pod in unknown)


def from_wire(pod: pb.Pod) -> PodRef:
    return PodRef(pod.namespace, pod.name, pod.uid)


def to_wire(pod: PodRef) -> pb.Pod:
    return pb.Pod(namespace=pod.namespace, name=pod.name, uid=pod.uid)
