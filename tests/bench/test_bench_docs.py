"""The tables of docs/performance.md, and the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_results import AN_IDLE, a_measured, some_results, whole_results

from bench.mesh import docs, loads

PAGE = f"# Performance\n\nbefore\n{docs.BEGIN}\nwhat was there\n{docs.END}\nafter\n"


def test_tables_replace_those_that_are_there_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    docs.update(whole_results(), page)
    first = page.read_text()
    assert first.startswith(f"# Performance\n\nbefore\n{docs.BEGIN}\n")
    assert first.endswith(f"{docs.END}\nafter\n")
    assert "what was there" not in first
    docs.update(whole_results(), page)
    assert page.read_text() == first


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(docs.END, ""))
    with pytest.raises(docs.NoMarks, match=docs.END):
        docs.update(whole_results(), page)
    assert "what was there" in page.read_text()


def test_the_page_has_the_marks() -> None:
    text = docs.PAGE.read_text()
    assert text.count(docs.BEGIN) == text.count(docs.END) == 1
    assert text.index(docs.BEGIN) < text.index(docs.END)


def test_every_load_and_every_goal_is_in_the_tables() -> None:
    said = docs.section(whole_results())
    assert all(load.title in said for load in loads.LOADS)
    assert "| ≤ 0.75 |" in said
    assert "**missed**" in said
    assert "ambient, across nodes: tunnel" in said
    assert all(f"../bench/results/{name}" in said for name in docs.CHARTS)


def test_memory_is_shown_for_both_nodes() -> None:
    said = docs.section(some_results({}, idle={"ambient": AN_IDLE}))
    assert "| ambient, across nodes: engine, 10,000 connections | 8.00 and 9.00 | 5.00 and 7.00 |" in said


def test_what_went_wrong_is_said() -> None:
    results = some_results({"envoy": {"http_64": [a_measured(errors=3)]}})
    assert "- envoy: http_64: 3 errors" in docs.section(results)


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    charts = pytest.importorskip("bench.mesh.charts", reason="pictures need the extra `bench`", exc_type=ImportError)
    assert {path.name for path in charts.draw(whole_results(), tmp_path)} == set(docs.CHARTS)
    some = some_results({"none": {"bulk_1": [a_measured()]}})
    assert [path.name for path in charts.draw(some, tmp_path)] == ["rates.png"]
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
