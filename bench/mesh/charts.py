"""The results as pictures. Draws files, decides nothing: figures and verdicts come from figures.py and goals.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

from bench.mesh import figures, goals
from bench.mesh.figures import Figure, Results
from bench.mesh.goals import Verdict
from bench.mesh.loads import LOADS, TITLES, Load
from bench.mesh.modes import NAMES
from bench.mesh.modes import TITLES as MODES

COLOURS = {
    "none": "#9aa0a6",
    "ambient": "#1a73e8",
    "envoy": "#d56e0c",
    "none_same": "#c8ccd0",
    "ambient_same": "#7baaf7",
}
REACHED, MISSED = "#1e8e3e", "#c5221f"
DPI = 110


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the pictures that docs.CHARTS names; what was not measured is left out. Returns those written."""
    mpl.use("Agg")
    latency = [load for load in LOADS if "p50_us" in load.figures]
    rates = [load for load in LOADS if load.figures[0] in ("gbit_s", "per_s")]
    pictures = {
        "goals.png": _goals(goals.verdicts(results)),
        "latency.png": _panels(results, [(load, name) for load in latency for name in load.figures[:3]], columns=3),
        "rates.png": _panels(results, [(load, load.figures[0]) for load in rates], columns=4),
        "cpu.png": _panels(results, [(load, "cpu") for load in LOADS], columns=4),
    }
    written = []
    for name, picture in pictures.items():
        if picture is None:
            continue
        picture.savefig(folder / name, dpi=DPI)
        pyplot.close(picture)
        written.append(folder / name)
    return written


def _panels(results: Results, wanted: Sequence[tuple[Load, str]], columns: int) -> Picture | None:
    """A panel for each figure: a bar for each mode that has it, with its lowest and highest round."""
    found = []
    for load, what in wanted:
        values = {mode: figures.series(results, load.name, mode, what) for mode in NAMES}
        bars = {mode: Figure.of(each) for mode, each in values.items() if any(each)}
        if bars:
            found.append((load, what, bars))
    if not found:
        return None
    lines = -(-len(found) // columns)
    picture, axes = pyplot.subplots(lines, columns, figsize=(4.1 * columns, 2.3 * lines + 0.5), squeeze=False)
    for place, (load, what, bars) in zip(axes.flat, found, strict=False):
        _bars(place, f"{load.title}\n{TITLES.get(what, load.cpu_unit)}", bars)
    for place in axes.flat[len(found) :]:
        place.axis("off")
    modes = [mode for mode in NAMES if any(mode in bars for _, _, bars in found)]
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS[mode]) for mode in modes]
    picture.legend(handles, [MODES[mode] for mode in modes], loc="lower center", ncols=len(modes), frameon=False)
    picture.tight_layout(rect=(0, 0.45 / (2.3 * lines + 0.5), 1, 1))
    return picture


def _bars(place: Axes, title: str, bars: dict[str, Figure]) -> None:
    for position, (mode, figure) in enumerate(bars.items()):
        spread = [[figure.median - figure.low], [figure.high - figure.median]]
        place.barh(position, figure.median, color=COLOURS[mode], xerr=spread, ecolor="#5f6368", capsize=2)
    place.set_title(title, fontsize=9)
    medians = [figures.number(figure.median) for figure in bars.values()]
    place.set_yticks(range(len(bars)), medians, fontsize=8)
    place.tick_params(axis="y", length=0)
    place.invert_yaxis()
    place.tick_params(axis="x", labelsize=7)
    place.spines[["top", "right", "left"]].set_visible(False)


def _goals(verdicts: Sequence[Verdict]) -> Picture | None:
    """Each ratio beside its goal, on a scale where twice and half are as far from 1."""
    ratios = [verdict for verdict in verdicts if not verdict.unit]
    if not ratios:
        return None
    picture, place = pyplot.subplots(figsize=(11, 0.3 * len(ratios) + 1.4))
    for position, verdict in enumerate(ratios):
        colour = REACHED if verdict.reached else MISSED
        found = verdict.found
        place.plot([found.low, found.high], [position, position], color=colour, linewidth=2, alpha=0.5)
        place.plot(found.median, position, "o", color=colour)
        place.plot(verdict.bound, position, marker="<" if verdict.at_most else ">", color="#202124", fillstyle="none")
        place.text(1.01, position, figures.number(found.median), va="center", transform=place.get_yaxis_transform())
    place.axvline(1, color="#9aa0a6", linewidth=0.8)
    place.set_xscale("log", base=2)
    place.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    place.set_yticks(range(len(ratios)), [f"{verdict.where}: {verdict.title}" for verdict in ratios], fontsize=8)
    place.invert_yaxis()
    place.grid(axis="y", alpha=0.2)
    place.set_title(
        "dot: median of the rounds' ratios, line: their spread; triangle: the goal, the point on its wrong side"
    )
    place.title.set_fontsize(9)
    picture.tight_layout()
    return picture
