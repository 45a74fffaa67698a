"""One kind as the mesh understands it: what stands for each object, and what is wrong with it. No I/O, no time.

Turns what a Follower tells into changes; a new list becomes the difference to what was known. Of an object nothing is
kept but the noun it became.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ambient.sources import manifests
from ambient.sources.kubernetes.kinds import Resource
from ambient.sources.kubernetes.outcomes import Outcome, Outcomes
from ambient.sources.kubernetes.wire import Change, Event, Raw
from ambient.sources.manifests import Object, Ref

LAST_GOOD = "its last version that could be read stays in force"
INSTEAD = {
    "AuthorizationPolicy": "everything is denied to what it selects (to its whole scope, if that cannot be read)",
    "PeerAuthentication": "what it selects (its whole scope, if that cannot be read) is STRICT",
    "TrafficPolicy": "what it selects (its whole scope, if that cannot be read) sends with mutual TLS only",
}
SETTINGS = "a setting that cannot be read counts as the strict one"
Changes = dict[Ref, Object | None]  # None: gone


@dataclass(frozen=True, slots=True)
class Reading:
    """What one version of an object says."""

    object: Object | None
    stand_in: Object | None
    outcome: Outcome | None


GONE = Reading(None, None, None)


def _conditions(raw: Raw) -> Sequence[Raw]:
    """What a policy's status says. Whatever else is in its place says nothing."""
    status = raw.get("status")
    found = status.get("conditions") if isinstance(status, Mapping) else None
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, Sequence) else ()


@dataclass(slots=True)
class Ledger:
    resource: Resource
    outcomes: Outcomes
    _standing: dict[Ref, Object] = field(default_factory=dict)
    _good: dict[Ref, str] = field(default_factory=dict)  # of policies that stand as they were read: the object's uid
    _found: dict[Ref, Reading] = field(default_factory=dict)  # by a list that is not complete

    def started(self) -> None:
        self._found = {}

    def found(self, objects: Iterable[Raw], version: str) -> None:
        for raw in objects:
            ref, reading = self._read(raw, version)
            self._found[ref] = reading

    def listed(self) -> Changes:
        """The difference to what was known before the list."""
        found, self._found = self._found, {}
        gone = [ref for ref in self._standing if ref not in found]
        return self._settle([*((ref, GONE) for ref in gone), *found.items()])

    def happened(self, events: Iterable[Event], version: str) -> Changes:
        readings = []
        for event in events:
            ref, reading = self._read(event.object, version)
            readings.append((ref, GONE if event.change is Change.DELETED else reading))
        return self._settle(readings)

    def _read(self, raw: Raw, version: str) -> tuple[Ref, Reading]:
        api_version, kind = self.resource.api_version(version), self.resource.kind
        found = manifests.translate({**raw, "apiVersion": api_version, "kind": kind})
        outcome = None
        if found.problems or kind in manifests.POLICY_KINDS:
            metadata = raw["metadata"]
            generation = metadata.get("generation")
            outcome = Outcome(
                ref=found.ref,
                api_version=api_version,
                namespace=metadata.get("namespace") or "",
                name=metadata["name"],
                uid=metadata.get("uid") or "",
                generation=generation if isinstance(generation, int) else 0,
                version=metadata.get("resourceVersion") or "",
                conditions=_conditions(raw) if kind in manifests.POLICY_KINDS else (),
                problems=found.problems,
            )
        return found.ref, Reading(found.object, found.stand_in, outcome)

    def _settle(self, readings: Iterable[tuple[Ref, Reading]]) -> Changes:
        """One after the other, since what stands may depend on what stood. Only what is other than before."""
        changes: Changes = {}
        for ref, reading in readings:
            stands, outcome = self._judge(ref, reading)
            self.outcomes.put(ref, outcome)
            if stands == self._standing.get(ref):
                continue
            changes[ref] = stands
            if stands is None:
                del self._standing[ref]
            else:
                self._standing[ref] = stands
        return changes

    def _judge(self, ref: Ref, reading: Reading) -> tuple[Object | None, Outcome | None]:
        """What stands for the object. A policy that was good stays so, unless it was another object of this name."""
        outcome = reading.outcome
        good = self._good.pop(ref, None)
        if outcome is None:
            return reading.object, None
        if not outcome.problems:
            self._good[ref] = outcome.uid
            return reading.object, outcome
        if good == outcome.uid and good is not None:
            self._good[ref] = good
            return self._standing[ref], dataclasses.replace(outcome, instead=LAST_GOOD)
        return reading.stand_in, dataclasses.replace(outcome, instead=INSTEAD.get(ref.kind, SETTINGS))
