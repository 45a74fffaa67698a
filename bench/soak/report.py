"""What was sampled as trends, and the table of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.soak import flat

Samples = list[tuple[float, dict[str, float]]]  # seconds since the beginning, figures by name


def trends(samples: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, flat.Trend]:
    """By name, sorted. Raises ValueError where there are too few samples."""
    names = sorted({name for _, values in samples for name in values})
    return {name: flat.trend([(at, values[name]) for at, values in samples if name in values]) for name in names}


def tolerance(name: str) -> flat.Tolerance:
    by_end = {"memory": flat.MEMORY, "metrics": flat.SERIES, "engine descriptors": flat.STASHED}
    return next((found for end, found in by_end.items() if name.endswith(end)), flat.COUNT)


def not_flat(found: Mapping[str, flat.Trend]) -> list[str]:
    return [name for name, trend in found.items() if not trend.within(tolerance(name))]


def table(found: Mapping[str, flat.Trend]) -> str:
    """Markdown: level and growth in the second half, KiB for memory, else a count."""
    rows = ["| second half | level (KiB, or count) | grew by | |", "|---|---|---|---|"]
    grown = not_flat(found)
    for name, trend in found.items():
        unit = 1024.0 if name.endswith("memory") else 1.0
        verdict = "**grows**" if name in grown else "flat"
        rows.append(f"| {name} | {trend.level / unit:,.0f} | {trend.grown / unit:+,.1f} | {verdict} |")
    return "\n".join(rows)
