"""Events: what went wrong with somebody's object, beside the object, where people look for it.

Best effort, and never more than the API server or its readers can bear: the same again is counted, not repeated; each
object and all of them together have a budget; what is too much, or too old, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ambient.control import api
from ambient.control.api import Api, ApiError, Json
from ambient.control.workqueue import WorkQueue

CONTROLLER = "ambient.dev/control"
REPEAT_S = 600.0  # the same about the same object is written no more often
BURST, REFILL_S = 10, 60.0  # different ones about one object: ten, then one a minute
PENDING = 1_000  # written a few hundred a second; beyond, the API server is away
STALE_S = 600.0  # nobody looks for what is older when the API server is back
BUDGETS = 10_000  # objects whose budget is remembered
NOTE_BYTES = 1024  # the API's limit
WORKERS = 2
_PERMANENT = range(400, 500)
_PASSING = (408, 409, 429)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object an Event is about."""

    api_version: str
    kind: str
    namespace: str  # empty: of no namespace
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class _Key:
    subject: Subject
    action: str
    reason: str
    note: str

    def __str__(self) -> str:
        return f"Event {self.reason} of {self.subject.kind} {self.subject.namespace}/{self.subject.name}"


@dataclass(frozen=True, slots=True)
class _Seen:
    count: int
    at: float  # loop's time, of the last one


class Events:
    def __init__(
        self,
        kubernetes: Api,
        instance: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        """`instance`: this replica's name."""
        self._api = kubernetes
        self._instance = instance
        self._now = now
        self._queue = WorkQueue(self._write, calm=REPEAT_S, rng=rng)
        self._budgets: OrderedDict[Subject, tuple[float, float]] = OrderedDict()  # what is left, and since when
        self.dropped = 0

    def warn(self, subject: Subject, action: str, reason: str, note: str) -> None:
        """`action`, `reason`: CamelCase, of few; `note`: for people. Never blocks."""
        key = _Key(subject, action, reason, note.encode()[:NOTE_BYTES].decode(errors="ignore"))
        waiting = self._queue.get(key)
        if waiting is None and (len(self._queue) >= PENDING or not self._affordable(subject)):
            self.dropped += 1
            return
        count = waiting.count if waiting else 0
        self._queue.put(key, _Seen(count + 1, asyncio.get_running_loop().time()))

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run(WORKERS)

    def _affordable(self, subject: Subject) -> bool:
        now = asyncio.get_running_loop().time()
        left, at = self._budgets.pop(subject, (float(BURST), now))
        left = min(left + (now - at) / REFILL_S, float(BURST))
        affordable = left >= 1
        self._budgets[subject] = (left - affordable, now)
        if len(self._budgets) > BUDGETS:
            self._budgets.popitem(last=False)
        return affordable

    async def _write(self, key: _Key, seen: _Seen) -> None:
        """The same Event has the same name in all replicas: the first one to see it makes it, all count it on."""
        if asyncio.get_running_loop().time() - seen.at > STALE_S:
            self.dropped += 1
            return
        try:
            await self._create(key, seen)
        except ApiError as error:
            if error.status in _PERMANENT and error.status not in _PASSING:
                self.dropped += 1  # its namespace goes away, or we may not
                return
            raise

    async def _create(self, key: _Key, seen: _Seen) -> None:
        event = self._event(key)
        try:
            await self._api.create(api.EVENT, event)
            if seen.count == 1:
                return
            before = 0
        except ApiError as error:
            if error.status != api.CONFLICT:
                raise
            known = await self._api.get(api.EVENT, event["metadata"]["namespace"], event["metadata"]["name"])
            before = int((known.get("series") or {}).get("count") or known.get("deprecatedCount") or 1)
        series = {"count": before + seen.count, "lastObservedTime": self._time()}
        await self._api.patch(api.EVENT, {"metadata": event["metadata"], "series": series}, api.Patch.MERGE)

    def _event(self, key: _Key) -> Json:
        subject = key.subject
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return {
            "metadata": {"namespace": subject.namespace or "default", "name": f"{subject.name[:230]}.{digest}"},
            "eventTime": self._time(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": key.action,
            "reason": key.reason,
            "type": "Warning",
            "note": key.note,
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
        }

    def _time(self) -> str:
        return f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
