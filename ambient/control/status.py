"""What became of users' resources, said on them: a condition on each policy, an Event for what is wrong with anything.

The Lease holder's business. What is there already is not written again, a newer generation is never spoken for, and
nothing is written over what somebody else wrote since it was read: so a holder that lost its Lease in the middle of a
write does no harm. It is read again only if it is another by then than it was when it was judged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ambient.control import api
from ambient.control.api import Api, ApiError, Json, Kind, Patch
from ambient.control.events import Events, Subject
from ambient.control.workqueue import WorkQueue

CONDITION = "Accepted"
HAVE_CONDITIONS = ("AuthorizationPolicy", "PeerAuthentication", "TrafficPolicy")
CALM_S = 1.0  # a resource that changes all the time is spoken of once a second
WORKERS = 4
LAST_S = 300.0  # between tries at what is refused for good, until somebody grants it
MESSAGE_BYTES = 32_768  # the API's limit of a condition's message


class Ref(Protocol):
    @property
    def kind(self) -> str: ...


class Problem(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def expected(self) -> str: ...
    @property
    def found(self) -> str: ...


class Outcome(Protocol):
    """The verdict on one generation of one object, as a source tells it."""

    @property
    def ref(self) -> Ref: ...
    @property
    def api_version(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def version(self) -> str:
        """The object's resourceVersion when it was judged; empty: not known."""

    @property
    def conditions(self) -> Sequence[Mapping[str, Any]]:
        """Of its status, then."""

    @property
    def problems(self) -> Sequence[Problem]:
        """None: accepted."""

    @property
    def instead(self) -> str:
        """With problems: what holds until they are mended."""


class Statuses:
    def __init__(
        self,
        kubernetes: Api,
        events: Events,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self._api = kubernetes
        self._events = events
        self._now = now
        self._rng = rng

    async def run(self, outcomes: AsyncGenerator[Sequence[Outcome], None]) -> None:
        """Write what becomes of everything until cancelled; while this replica holds the Lease, and not otherwise."""
        queue: WorkQueue[Subject, Outcome] = WorkQueue(self._write, calm=CALM_S, last=LAST_S, rng=self._rng)
        async with asyncio.TaskGroup() as tasks, aclosing(outcomes):
            tasks.create_task(queue.run(WORKERS), name="statuses: writers")
            async for batch in outcomes:
                for outcome in batch:
                    queue.put(_subject(outcome), outcome)

    async def _write(self, subject: Subject, outcome: Outcome) -> None:
        if subject.kind not in HAVE_CONDITIONS:
            self._warn(subject, outcome)
            return
        kind = Kind(subject.kind, _plural(subject.kind), subject.api_version, namespaced=bool(subject.namespace))
        said: bool | None = None
        if outcome.version:
            try:
                said = await self._say(kind, _as_read(outcome), outcome)
            except ApiError as error:
                if error.status not in (api.CONFLICT, api.NOT_FOUND):  # it is not what it was, or not there
                    raise
        if said is None:
            said = await self._say_now(kind, subject, outcome)
        if said:
            self._warn(subject, outcome)

    async def _say_now(self, kind: Kind, subject: Subject, outcome: Outcome) -> bool:
        """Of the object as it is now, if it is still the one that was judged: as _say()."""
        found = await api.find(self._api, kind, subject.namespace, subject.name)
        if found is None or found["metadata"]["uid"] != subject.uid:
            return False  # gone, or another one, of which there will be another outcome
        if int(found["metadata"].get("generation") or 0) > outcome.generation:
            return False  # as above
        try:
            return await self._say(kind, found, outcome)
        except ApiError as error:
            if error.status != api.NOT_FOUND:
                raise
            return True  # gone meanwhile, or its definition has no status

    async def _say(self, kind: Kind, found: Json, outcome: Outcome) -> bool:
        """Write the condition on the object, which was found so, if it says something else: did it? Raises ApiError."""
        conditions = judged(found, outcome, self._now())
        if conditions is None:
            return False
        metadata = {key: found["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        await self._api.patch(
            kind, {"metadata": metadata, "status": {"conditions": conditions}}, Patch.MERGE, status=True
        )
        return True

    def _warn(self, subject: Subject, outcome: Outcome) -> None:
        if outcome.problems:
            self._events.warn(subject, "Validate", "Rejected", _message(outcome))


def _as_read(outcome: Outcome) -> Json:
    """The object as far as it was read when it was judged."""
    metadata = {"name": outcome.name, "namespace": outcome.namespace, "uid": outcome.uid}
    return {
        "metadata": {**metadata, "resourceVersion": outcome.version},
        "status": {"conditions": [dict(each) for each in outcome.conditions]},
    }


def judged(found: Json, outcome: Outcome, now: datetime) -> list[Json] | None:
    """The object's conditions with what became of it among them; None if it says just that already. Pure."""
    ours = Ours(
        type=CONDITION,
        status="False" if outcome.problems else "True",
        reason="Invalid" if outcome.problems else "Accepted",
        message=_message(outcome),
        generation=outcome.generation,
    )
    return merged(found, ours, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A condition, as we would have it."""

    type: str
    status: str  # "True" or "False"
    reason: str
    message: str
    generation: int


def merged(found: Json, condition_: Ours, now: datetime) -> list[Json] | None:
    """The object's conditions with ours among them; None if it is there already. Pure."""
    conditions: list[Json] = list((found.get("status") or {}).get("conditions") or [])
    ours: Json = {
        "type": condition_.type,
        "status": condition_.status,
        "reason": condition_.reason,
        "message": condition_.message,
        "observedGeneration": condition_.generation,
    }
    for index, condition in enumerate(conditions):
        if condition.get("type") != condition_.type:
            continue
        if {key: condition.get(key) for key in ours} == ours:
            return None
        since = condition.get("lastTransitionTime") if condition.get("status") == ours["status"] else None
        conditions[index] = {**ours, "lastTransitionTime": since or _time(now)}
        return conditions
    return [*conditions, {**ours, "lastTransitionTime": _time(now)}]


def _message(outcome: Outcome) -> str:
    if not outcome.problems:
        return "in force"
    text = "; ".join(f"{each.path}: expected {each.expected}, found {each.found}" for each in outcome.problems)
    text += f". Until that is mended: {outcome.instead}" if outcome.instead else ""
    return text.encode()[:MESSAGE_BYTES].decode(errors="ignore")


def _subject(outcome: Outcome) -> Subject:
    return Subject(
        api_version=outcome.api_version,
        kind=outcome.ref.kind,
        namespace=outcome.namespace,
        name=outcome.name,
        uid=outcome.uid,
    )


def _plural(kind: str) -> str:
    """As the definitions of our kinds have it."""
    lower = kind.lower()
    return lower[:-1] + "ies" if lower.endswith("y") else lower + "s"


def _time(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
