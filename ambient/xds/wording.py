"""What responses say, made once for all streams that say the same: a change's news are. Pure, but for remembering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ambient.xds.proto import discovery_pb2 as pb
from ambient.xds.resources import Resource

SHARED_NAMES = 20  # said at once are news, and worth remembering; more are what one client did not have
_NONCE = pb.DeltaDiscoveryResponse.NONCE_FIELD_NUMBER << 3 | 2  # a length-delimited field


class State(Protocol):
    """What is said of a Snapshot."""

    @property
    def revision(self) -> str: ...

    def table(self, type_url: str) -> Mapping[str, Resource]:
        """Resources by name."""


class Wording:
    def __init__(self, identifier: str = "") -> None:
        """identifier: what the control plane calls itself."""
        self._identifier = identifier
        self._state: State | None = None  # whose news are remembered
        self._news: dict[tuple[str, tuple[str, ...], bool], bytes] = {}

    def response(self, state: State, type_url: str, names: tuple[str, ...], nonce: str, *, more: bool) -> bytes:
        """A DeltaDiscoveryResponse: the resources of these names, and which of them there are none of."""
        return bytes([_NONCE, len(nonce)]) + nonce.encode() + self._beside_nonce(state, type_url, names, more)

    def _beside_nonce(self, state: State, type_url: str, names: tuple[str, ...], more: bool) -> bytes:
        if len(names) > SHARED_NAMES:
            return self._make(state, type_url, names, more)
        if state is not self._state:
            self._state = state
            self._news = {}
        news = type_url, names, more
        if news not in self._news:
            self._news[news] = self._make(state, *news)
        return self._news[news]

    def _make(self, state: State, type_url: str, names: tuple[str, ...], more: bool) -> bytes:
        table = state.table(type_url)
        found = [(name, table.get(name)) for name in names]
        head = pb.DeltaDiscoveryResponse(
            system_version_info=state.revision,
            type_url=type_url,
            removed_resources=[name for name, resource in found if resource is None],
            control_plane=pb.ControlPlane(identifier=self._identifier),
            more=more,
        )
        return b"".join([head.SerializeToString(), *(resource.element for _, resource in found if resource)])
