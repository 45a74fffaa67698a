"""A command whose streams are closed, full, or read no further: one sentence at most, and an exit code that says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AMBIENT = f"{sys.executable} -m ambient"
SHOP = Path(__file__).parents[2] / "examples" / "shop.yaml"
CHECK = f"{AMBIENT} check -f {SHOP}"
BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
FULL = "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{CHECK} >/dev/full", 1, FULL),
        (f"{CHECK} -o json >/dev/full", 1, FULL),
        (f"{AMBIENT} --help >/dev/full", 1, FULL),
        (f"{AMBIENT} lab up --help >/dev/full", 1, FULL),
        (f"_AMBIENT_COMPLETE=bash_source {AMBIENT} >/dev/full", 1, FULL),
        (f"{AMBIENT} --version 1</dev/null", 1, "Error: the output cannot be written: Bad file descriptor\n"),
        (f"{AMBIENT} dance 2>/dev/full", 1, ""),
        (f"{CHECK} >/dev/full 2>/dev/full", 1, ""),
        (f"{CHECK} >&-", 0, ""),
        (f"{CHECK} >&- 2>&- <&-", 0, ""),
        (f"{AMBIENT} dance 2>&-", 2, ""),
        (f"{CHECK} -o json | true; exit ${{PIPESTATUS[0]}}", 1, ""),
    ],
)
def test_no_traceback_and_an_exit_code_of_its_own(line: str, code: int, said: str, unbuffered: str) -> None:
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**BUFFERED, "PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [("check -f -", 0, "- is fine: nothing in it\n"), ("ask", 2, "")],
)
def test_an_input_that_is_closed_is_an_empty_one(command: str, code: int, said: str) -> None:
    done = subprocess.run(["bash", "-c", f"{AMBIENT} {command} <&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said)
    assert "Traceback" not in done.stderr
