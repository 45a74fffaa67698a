"""What commands take as names: the form each must have, and what exists, for the shell's completion.

Only directories are listed for that: no agent and no daemon is asked, and nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ambient import config

ENV = "AMBIENT_LAB"
_DNS_LABEL = re.compile(r"\w([-\w]{0,61}\w)?", re.ASCII)


class Name(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """`check` raises ValueError, which is wrong usage; `existing` lists what is there in a lab's directory."""

    def __init__(self, name: str, check: Callable[[str], object], existing: Callable[[Path], Iterable[str]]) -> None:
        self.name = name
        self._check = check
        self._existing = existing

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 (click's signature)
        lab = config.LABS / (ctx.params.get("lab") or os.environ.get(ENV) or config.LAB)
        with contextlib.suppress(OSError):  # no such lab, or not ours to see: then there is nothing to offer
            return [CompletionItem(name) for name in sorted(self._existing(lab)) if name.startswith(incomplete)]
        return []


def labs() -> list[str]:
    """The labs that exist. Raises OSError when that cannot be seen."""
    return sorted(path.name for path in config.LABS.iterdir() if path.is_dir()) if config.LABS.exists() else []


def _lab(text: str) -> None:
    if not config.LAB_NAME.fullmatch(text):
        raise ValueError(f"{text!r}: expected {config.LAB_NAME_IS}")


def _pod(text: str) -> None:
    if [bool(part) for part in text.split("/")] != [True, True]:
        raise ValueError(f"{text!r}: expected NAMESPACE/POD")


def _daemonset(text: str) -> None:
    if not re.fullmatch(r"[a-z0-9][-a-z0-9]*/[a-z0-9][-.a-z0-9]*", text):
        raise ValueError(f"{text!r}: expected NAMESPACE/NAME")


def _log(text: str) -> None:
    if [bool(part) for part in text.split("/")] != [True, True]:
        raise ValueError(f"{text!r}: expected NAMESPACE/POD or node/NAME")


def _place(text: str) -> None:
    from ambient.observe import names

    names.split(text)


def _dns_name(text: str) -> None:
    if len(text) > 253 or not all(map(_DNS_LABEL.fullmatch, text.split("."))):
        raise ValueError(f"{text!r}: expected a DNS name, without port and scheme")


def _listen(text: str) -> None:
    """An address or its name alone; empty: every address."""
    if not text:
        return
    try:
        ipaddress.ip_address(text)
    except ValueError:
        _dns_name(text)


def _trust_domain(text: str) -> None:
    from ambient.identity import spiffe

    spiffe.trust_domain(text)


def _node(text: str) -> None:
    if not text or re.search(r"[\s/]", text):
        raise ValueError(f"{text!r}: expected the name of a node")


def _target(text: str) -> None:
    from ambient.lab import cluster

    cluster.target(text)


def _change(text: str) -> None:
    from ambient.lab import cluster

    cluster.change(text)


def _namespace(text: str) -> None:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise ValueError(f"{text!r}: expected the name of a namespace")


def _objects(lab: Path, kind: str) -> list[str]:
    """NAMESPACE/NAME, or NAME of what has no namespace: as the lab calls its objects' files."""
    return [
        file.stem.partition("_")[2].replace("_", "/") for file in (lab / "cluster").iterdir() if _kind(file) == kind
    ]


def _kind(file: Path) -> str:
    return file.name.partition("_")[0]


def _targets(lab: Path) -> list[str]:
    short = {"namespace": "ns", "node": "node", "pod": "pod", "service": "service"}
    return [f"{word}/{name}" for kind, word in short.items() for name in _objects(lab, kind)]


LAB = Name("NAME", _lab, lambda _: labs())
NODE = Name("NODE", _node, lambda lab: _objects(lab, "node"))
NAMESPACE = Name("NAMESPACE", _namespace, lambda lab: _objects(lab, "namespace"))
DAEMONSET = Name("NAMESPACE/NAME", _daemonset, lambda _: [])
POD = Name("NAMESPACE/POD", _pod, lambda lab: _objects(lab, "pod"))
LOG = Name(
    "NAMESPACE/POD|node/NAME",
    _log,
    lambda lab: [*_objects(lab, "pod"), *(f"node/{name}" for name in _objects(lab, "node"))],
)
TARGET = Name("TARGET", _target, _targets)
ADDRESS = Name("ADDRESS", _listen, lambda _: [])
DNS_NAME = Name("NAME", _dns_name, lambda _: [])
UPSTREAM = Name("HOST:PORT", _place, lambda _: [])
TRUST_DOMAIN = Name("NAME", _trust_domain, lambda _: [])
CHANGE = Name("KEY=VALUE|KEY-", _change, lambda _: [])
PLACE = Name("HOST:PORT", _place, lambda lab: [f"{name.partition('/')[2]}:" for name in _objects(lab, "service")])
