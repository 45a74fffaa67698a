"""Outcomes as the table that docs/reliability.md shows, and as JSON. Measures nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from bench.disruption.events import Outcome

HEAD = (
    "event, on both nodes", "path", "messages", "lost", "connections broken", "new connections", "failed",
    "failed after 1 s", "longest stall", "slowest new connection",
)  # fmt: skip


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for outcome in outcomes:
        for path, tally in outcome.tallies.items():
            counts = (tally.answered, tally.lost, tally.broken, tally.came, tally.failed, tally.failed_late)
            times = (f"{tally.stall_ms:.0f} ms", f"{tally.slowest_ms:.0f} ms")
            rows.append((outcome.event.name, path, *(f"{count:,}" for count in counts), *times))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_json(outcomes: Iterable[Outcome]) -> list[dict[str, object]]:
    return [
        {
            "event": outcome.event.name,
            "seconds": round(outcome.seconds, 3),
            "paths": {path: dataclasses.asdict(tally) for path, tally in outcome.tallies.items()},
            "missed": outcome.missed(),
        }
        for outcome in outcomes
    ]
