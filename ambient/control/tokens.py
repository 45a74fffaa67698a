"""What a ServiceAccount token says of itself. Pure, and unverified: enough to refuse, never enough to admit."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

END_OF_TIME = 253_402_300_800  # the year 10,000, which no datetime knows
MAX_BYTES = 16 * 1024  # a bound token has 1 to 2 KiB


@dataclass(frozen=True, slots=True)
class Claims:
    subject: str  # system:serviceaccount:NAMESPACE:NAME
    audiences: tuple[str, ...]
    expires: float  # seconds of the Unix epoch
    pod_bound: bool


def peek(token: str) -> Claims:
    """Raises ValueError for what is no JSON Web Token of a ServiceAccount."""
    if len(token) > MAX_BYTES:
        raise ValueError(f"a token of {len(token)} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not a JSON Web Token")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(payload["exp"])
        if not 0 <= expires < END_OF_TIME:  # nor NaN
            raise ValueError(f"it expires at {expires}")
        audiences, bound = payload["aud"], payload.get("kubernetes.io", {})
        return Claims(
            subject=str(payload["sub"]),
            audiences=(audiences,) if isinstance(audiences, str) else tuple(str(each) for each in audiences),
            expires=expires,
            pod_bound="pod" in bound,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a ServiceAccount's token: {type(error).__name__}") from error
