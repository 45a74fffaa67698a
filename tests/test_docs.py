"""What documentation and comments point to is there: files and what is in them, links and their headings, commands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
FILES = sorted(path for path in LISTED.splitlines() if (ROOT / path).is_file())
PAGES = [path for path in FILES if path.endswith(".md")]
SOURCES = [path for path in FILES if re.search(r"\.(py|[ch]|sh|yaml|toml)$", path) or Path(path).name == "Makefile"]
FOLDERS = {str(parent) for path in FILES for parent in Path(path).parents}
TOPS = "|".join(sorted(re.escape(path.split("/")[0]) for path in FOLDERS if path != "." and not path.startswith(".")))
# A path from the top folder, or a file's name alone; `file.py: name` says what is in it, as `module.name` does.
IN_PAGES = re.compile(rf"`((?:{TOPS})/[\w./*-]*|[\w.-]+\.(?:py|c|h|sh))(?:: (\w+))?`")
DOTTED = re.compile(
    r"`([a-z_]+)\.(?!(?:py|[ch]|sh|json|md|ya?ml|crt|key|pem|local)\b)([a-z_]+)(?:\(\))?`"
)  # a module of ours and what is in it
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)\b(?=`|\s*(?:#|$)| and| \()", re.MULTILINE)
MODULE = re.compile(r"python -m ((?:bench|hack)[\w.]*)")
IN_SOURCES = re.compile(rf"(?<![\w/.{{<-])((?:{TOPS})/[\w./-]*\.(?:py|c|h|sh|md|yaml))\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
OWN = str(Path(__file__).relative_to(ROOT))
MADE = ("ambient/native", "build/")  # by `make`


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text(errors="replace")


def is_there(name: str) -> bool:
    if "/" not in name:
        return any(Path(path).name == name for path in FILES)
    return name.startswith(MADE) or name.rstrip("/") in FOLDERS or any(Path(path).match(name) for path in FILES)


def slug(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def missing(page: str) -> Iterator[str]:
    for name, inside in IN_PAGES.findall(text(page)):
        if not is_there(name):
            yield name
        elif inside and not any(re.search(rf"\b{inside}\b", text(path)) for path in FILES if Path(path).match(name)):
            yield f"{name}: {inside}"
    for module, inside in DOTTED.findall(text(page)):
        homes = [path for path in FILES if Path(path).match(f"ambient/**/{module}.py")]
        if homes and not any(re.search(rf"\b{inside}\b", text(path)) for path in homes):
            yield f"{module}.{inside}"
    for target in TARGET.findall(text(page)):
        if not re.search(rf"^(\.PHONY:.*\b)?{target}\b", text("Makefile"), re.MULTILINE):
            yield f"make {target}"
    for module in MODULE.findall(text(page)):
        path = module.replace(".", "/")
        if not ({f"{path}.py", f"{path}/__main__.py"} & set(FILES)):
            yield f"python -m {module}"
    for target in LINK.findall(text(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        other = (ROOT / page).parent / path if path else ROOT / page
        if not other.exists() or (anchor and anchor not in map(slug, HEADING.findall(other.read_text()))):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    assert list(missing(page)) == []


def test_what_the_code_names_is_there() -> None:
    dead = {f"{path}: {name}" for path in SOURCES for name in IN_SOURCES.findall(text(path)) if not is_there(name)}
    assert sorted(each for each in dead if not each.startswith(OWN)) == []


def test_names_are_told_from_other_words() -> None:
    """Or the tests above would find nothing whatever is written."""
    assert IN_PAGES.findall("`ambient/nowhere.py: judge` and `gone.c`, `kubectl get`") == [
        ("ambient/nowhere.py", "judge"),
        ("gone.c", ""),
    ]
    assert not is_there("ambient/nowhere.py")
    assert not is_there("gone.c")
    assert is_there("bpf/decide.h")
    assert is_there("tests/mesh/")
    assert slug("What is on the node") == "what-is-on-the-node"
