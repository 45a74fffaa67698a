"""What a ServiceAccount token says of itself. Pure, and unverified: enough to refuse, never enough to admit."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

END_OF_TIME = 253_402_300_800  # the year 10,000, which no datetime knows
MAX_BYTES = 16 * 1024  # a bound token has 1 to 2 KiB


@dataclass(frozen=True, slots=True)
class Claims:
    subject: str  # system:serviceaccount:NAMESPACE:NAME
    audiences: tuple[str, ...]
    expires: float  # seconds of the Unix epoch
    pod: str = ""  # that it is bound to: name and uid, empty if to none
    pod_uid: str = ""
    node: str = ""  # of that pod, since Kubernetes 1.32


def peek(token: str) -> Claims:
    """Raises ValueError for what is no JSON Web Token of a ServiceAccount."""
    payload = _payload(token)
    try:
        audiences, bound = payload["aud"], payload.get("kubernetes.io", {})
        return Claims(
            subject=str(payload["sub"]),
            audiences=(audiences,) if isinstance(audiences, str) else tuple(str(each) for each in audiences),
            expires=_expires(payload),
            pod=_named(bound, "pod", "name"),
            pod_uid=_named(bound, "pod", "uid"),
            node=_named(bound, "node", "name"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a ServiceAccount's token: {type(error).__name__}") from error


def _named(bound: Any, kind: str, field: str) -> str:
    return str(bound[kind].get(field) or "") if isinstance(bound.get(kind), dict) else ""


def _payload(token: str) -> dict[str, Any]:
    if len(token) > MAX_BYTES:
        raise ValueError(f"a token of {len(token)} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not a JSON Web Token")
    try:
        return dict(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Token: {type(error).__name__}") from error


def _expires(payload: dict[str, Any]) -> float:
    try:
        found = float(payload["exp"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"a token without an end: {type(error).__name__}") from error
    if not 0 <= found < END_OF_TIME:  # nor NaN
        raise ValueError(f"a token that expires at {found}")
    return found
