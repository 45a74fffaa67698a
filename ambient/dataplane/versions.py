"""What earlier versions of agent and engine say: how much of each message, and which not at all. Tables for wire.py."""

from __future__ import annotations

from collections.abc import Mapping

from ambient.dataplane.abi import Type

# Bytes of each message's body when there first was one, which everybody sends and reads; these never change.
LEAST: Mapping[Type, int] = {
    Type.HELLO: 32,
    Type.ACCEPTED: 64,
    Type.TUNNEL: 88,
    Type.REQUEST: 80,
    Type.DIAL_FAILED: 48,
    Type.STASH_LOW: 16,
    Type.ENDED: 176,
    Type.IDLE: 16,
    Type.ROW_ANSWER: 56,
    Type.ROW_CONN: 176,
    Type.ROW_LISTENER: 32,
    Type.ROW_END: 8,
    Type.SETTINGS: 40,
    Type.CLIENTS_MAP: 0,
    Type.POD: 16,
    Type.STASH: 16,
    Type.CONTEXT: 32,
    Type.LISTEN: 32,
    Type.UNLISTEN: 8,
    Type.LEAVE: 8,
    Type.ANSWER: 56,
    Type.FORGET: 8,
    Type.CUT: 16,
    Type.INVENTORY: 24,
    Type.SEEN: 8,
    Type.CONTEXTS: 8,
    Type.DRAIN: 8,
    Type.SPEAKS: 8,
}
# Messages that came after version 3: whoever speaks an older version is not told them.
SINCE: Mapping[Type, int] = {Type.SPEAKS: 4}
BODY_LENGTHS_SINCE = 4
