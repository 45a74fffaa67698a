"""The results as Markdown, between two marks of docs/performance.md. Pure but for that one file."""

from __future__ import annotations

from pathlib import Path

from bench.mesh import figures, goals
from bench.mesh.figures import Results
from bench.mesh.modes import NAMES, TITLES

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN = "<!-- what `python -m bench` found; written by it -->"
END = "<!-- until here -->"
CHARTS = {
    "goals.png": "every ratio and its goal",
    "latency.png": "round trips by mode",
    "rates.png": "rates by mode",
    "cpu.png": "CPU time by mode",
}


class NoMarks(Exception):
    """The page lacks the marks between which the tables belong."""


def update(results: Results, page: Path = PAGE) -> None:
    """Put the tables in place of those that are there. Raises NoMarks."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarks(f"{page} lacks the lines\n  {BEGIN}\n  {END}\nbetween which the tables are written")
    page.write_text(f"{before}{BEGIN}\n\n{section(results)}\n{END}{after}")


def section(results: Results) -> str:
    parts = [_about(results), _goals(results), _charts(), _rows(results), _memory(results), _paths(results)]
    parts.append(_errors(results))
    return "\n".join(part for part in parts if part)


def _about(results: Results) -> str:
    machine, versions = results["machine"], results["versions"]
    rounds = max((len(found) for loads in results["rounds"].values() for found in loads.values()), default=0)
    named = ", ".join(f"{name} {said}" for name, said in sorted(versions.items()))
    note = f" {results['note']}" if results.get("note") else ""
    return (
        f"{machine['cores']} × {machine['cpu']}, Linux {machine['kernel']}, {results['taken_at'][:10]}; medians of "
        f"{rounds} rounds of {results['seconds_per_load']} s (lowest to highest).{note}\nAbsolute figures are this "
        f"machine's; the ratios are the result. {named}.\n"
    )


def _goals(results: Results) -> str:
    """The ratio of each round, then the median of them."""
    lines = ["| | what | goal | found | |", "|---|---|---|---|---|"]
    for verdict in goals.verdicts(results):
        end = "reached" if verdict.reached else "**missed**"
        lines.append(f"| {verdict.where} | {verdict.title} | {verdict.goal} | {verdict.measured} | {end} |")
    return "\n".join(lines) + "\n"


def _charts() -> str:
    return "\n".join(f"![{title}](../bench/results/{name})" for name, title in CHARTS.items()) + "\n"


def _rows(results: Results) -> str:
    modes = [mode for mode in NAMES if mode in results["rounds"]]
    lines = ["| | " + " | ".join(TITLES[mode] for mode in modes) + " |", "|---" * (len(modes) + 1) + "|"]
    for row in figures.rows(results):
        cells = [figures.text(row.figures[mode]) if mode in row.figures else "" for mode in modes]
        if any(cell not in ("0", "") for cell in cells):
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _memory(results: Results) -> str:
    if not results["idle"]:
        return ""
    lines = ["| memory, client's node and server's | idle, MB | of each idle connection, KB |", "|---|---|---|"]
    for mode, idle in results["idle"].items():
        for kind, title in (("proxy", "engine" if mode == "ambient" else "Envoy"), ("agent", "agent")):
            if idle[f"{kind}_mb"]:
                whole = " and ".join(figures.number(each) for each in idle[f"{kind}_mb"])
                each = " and ".join(figures.number(each / 1e3) for each in idle[f"{kind}_bytes"])
                lines.append(f"| {TITLES[mode]}: {title}, {idle['connections']:,} connections | {whole} | {each} |")
    return "\n".join(lines) + "\n"


def _paths(results: Results) -> str:
    said = [f"{TITLES[mode]}: {', '.join(paths) or 'none'}" for mode, paths in results["carried"].items()]
    return f"Paths that the access records name: {'; '.join(said)}.\n" if said else ""


def _errors(results: Results) -> str:
    return "\n".join(f"- {line}" for line in figures.errors(results)) + "\n" if figures.errors(results) else ""
