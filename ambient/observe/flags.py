"""Why a connection failed, in the vocabulary of Istio's `response_flags`. Pure.

ztunnel's words where it has one (DENY, CONNECT, TLS_FAILURE, IDENTITY_ERROR), Envoy's two or three letters otherwise:
dashboards for Istio know both.
"""

from __future__ import annotations

NONE = "-"
DENY = "DENY"
CONNECT = "CONNECT"
IDENTITY = "IDENTITY_ERROR"
UNAUTHORIZED = 401

_ENDED = {
    "open": NONE,
    "closed": NONE,
    "reset_client": "DC",
    "reset_server": "UC",
    "cut": DENY,
    "refused": DENY,
    "no_answer": "LR",
    "no_socket": "OM",
    "no_context": IDENTITY,
    "dial": CONNECT,
    "handshake": "TLS_FAILURE",
    "peer_refused": CONNECT,
    "bad_request": "DPE",
    "protocol": "UPE",
    "timeout": "UT",
    "tunnel_lost": "UC",
    "expired": IDENTITY,
    "resources": "OM",
    "stranger": IDENTITY,
    "unadmitted": IDENTITY,
}

_DENIED = {
    "ambiguous_address": "NR",
    "no_healthy_endpoint": "UH",
    "no_such_port": "NR",
    "not_in_registry": "NR",
    "source_mismatch": IDENTITY,
    "unknown_pod": "NR",
    "unknown_source": IDENTITY,
}


def of(verdict: str, denied: str, ended: str, error: int = 0) -> str:
    """`denied`: the refusal's reason (policy or plan); `ended`: the engine's; `error`: its errno or HTTP status."""
    if verdict == "deny":
        return _DENIED.get(denied) or (DENY if ended in ("closed", "refused") else _ENDED.get(ended, DENY))
    if ended == "peer_refused" and error == UNAUTHORIZED:
        return DENY
    return _ENDED.get(ended, "LR")
