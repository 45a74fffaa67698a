"""A Flow as the label an answer carries through the engine: compact JSON, bounded. Pure; the engine never reads it.

A label is [FORMAT, reporter, source, destination, service, verdict, rule, reason, path, security], a party the list of
its fields. A principal that its party's namespace and service account already spell out is stored as "=trust domain".
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ambient.observe.records import Flow, Party

FORMAT = 1
MAX = 1024
MARK = "~"  # the end of a text that was shortened
_REPORTERS = ("source", "destination")
_VERDICTS = ("allow", "deny")
_PATHS = ("tunnel", "plaintext", "direct", "none")
_SECURITIES = ("mutual_tls", "unknown")


def encode(flow: Flow) -> bytes:
    """Shortens the longest text, again and again, until the whole fits."""
    source, destination = _party(flow.source), _party(flow.destination)
    texts = [flow.service, flow.rule, flow.reason]
    lists = (source, destination, texts)
    while True:
        data = _dump(
            [
                FORMAT,
                _REPORTERS.index(flow.reporter),
                source,
                destination,
                *texts,
                _VERDICTS.index(flow.verdict),
                _PATHS.index(flow.path),
                _SECURITIES.index(flow.security),
            ]
        )
        if len(data) <= MAX:
            return data
        longest = max(lists, key=lambda part: max(map(len, part)))
        at = max(range(len(longest)), key=lambda i: len(longest[i]))
        longest[at] = longest[at].removesuffix(MARK)[: len(longest[at]) * 3 // 4 - 1] + MARK


def decode(data: bytes) -> Flow:
    """Raises ValueError for anything that encode() does not write; what a later version adds at an end is left out."""
    from ambient.observe.records import Flow, Party

    def party(values: Any) -> Party:
        if not all(isinstance(value, str) for value in values):
            raise TypeError("a party has a field that is no text")
        found = Party(**dict(zip(_FIELDS, values[: len(_FIELDS)], strict=True)))
        if not found.principal.startswith("="):
            return found
        return dataclasses.replace(found, principal=_spelled(found.principal[1:], found))

    try:
        form, reporter, source, destination, service, rule, reason, verdict, path, security, *_ = json.loads(data)
        if form != FORMAT:
            raise ValueError(f"its format is {form!r}, this agent writes and reads {FORMAT}")
        return Flow(
            reporter=_REPORTERS[reporter],  # type: ignore[arg-type]
            source=party(source),
            destination=party(destination),
            service=service,
            rule=rule,
            reason=reason,
            verdict=_VERDICTS[verdict],  # type: ignore[arg-type]
            path=_PATHS[path],  # type: ignore[arg-type]
            security=_SECURITIES[security],  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{data[:80]!r} is no label of a flow: {error}") from error


_FIELDS = (
    "workload", "namespace", "service_account", "principal", "address", "owner", "app", "version", "region", "zone",
)  # fmt: skip


def _party(party: Party) -> list[str]:
    values = [getattr(party, name) for name in _FIELDS]
    domain = party.principal.partition("/")[0]
    if domain and party.principal == _spelled(domain, party):
        values[_FIELDS.index("principal")] = "=" + domain
    return values


def _spelled(domain: str, party: Party) -> str:
    return f"{domain}/ns/{party.namespace}/sa/{party.service_account}"


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
