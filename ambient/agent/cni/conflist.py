"""Network configurations of the node: which one runtimes choose, and the same with our plugin behind the others. Pure.

The foreign text stays as it is, byte for byte: ours is put between its last plugin and the bracket that ends the list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from json import decoder
from typing import Any

TYPE = "ambient-cni"  # the plugin's name, and its program's
OWN = "0-ambient.conflist"  # runtimes take the first by name: "-" sorts before every digit
EXTENSIONS = (".conf", ".conflist", ".json")  # what runtimes look at
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")  # of the specification; plugins are chained since 0.3.0
_BLANKS = " \t\r\n"


class Unusable(ValueError):
    """A configuration that cannot be chained; the text says why."""


def primary(names: Iterable[str]) -> list[str]:
    """Those that runtimes would try, in their order, without ours."""
    return sorted((name for name in names if name.endswith(EXTENSIONS) and name != OWN), key=str.encode)


def chained(name: str, text: str, plugin: Mapping[str, object]) -> str:
    """A list of all the configuration's plugins, and ours at the end. Raises Unusable."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Unusable(f"{name} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Unusable(f"{name} is no JSON object")
    if name < OWN:
        raise Unusable(f"{name} sorts before {OWN}, so runtimes would go on taking it: rename it")
    plugins = _plugins(name, body)
    if body.get("cniVersion") not in VERSIONS:
        raise Unusable(
            f"{name} is of CNI version {body.get('cniVersion') or 'unknown'}, ours are {', '.join(VERSIONS)}"
        )
    if any(each.get("type") == TYPE for each in plugins):
        return text
    if name.endswith(".conflist"):
        end = _end_of_last_plugin(text)
        return f"{text[:end]}, {json.dumps(plugin)}{text[end:]}"
    head = json.dumps({key: body[key] for key in ("cniVersion", "name")})
    return f'{head[:-1]}, "plugins": [{text.strip()}, {json.dumps(plugin)}]}}\n'


def _plugins(name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """As libcni has it: every plugin has a type, a list has a name and at least one plugin."""
    plugins = body.get("plugins") if name.endswith(".conflist") else [body]
    if not isinstance(plugins, list) or not plugins:
        raise Unusable(f"{name} has no plugins")
    if not isinstance(body.get("name"), str):
        raise Unusable(f"{name} has no name")
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in plugins):
        raise Unusable(f"{name} has a plugin without a type")
    return plugins


def _end_of_last_plugin(text: str) -> int:
    """Where in a valid list the last element of the outermost "plugins" ends; of two such members, the last holds."""
    found = 0
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = decoder.scanstring(text, at + 1, True)  # type: ignore[attr-defined]
        start = _skip(text, _skip(text, at) + 1)
        _, at = json.JSONDecoder().raw_decode(text, start)
        if key == "plugins":
            found = len(text[: at - 1].rstrip(_BLANKS))
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while text[at] in _BLANKS:
        at += 1
    return at
