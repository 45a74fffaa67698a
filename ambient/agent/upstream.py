"""Where an agent's Worlds and certificates come from, and whom it tells what became of them.

By itself: a directory of manifests and a CA in a directory, nobody to tell. In a cluster: the control plane, for all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ambient import config
from ambient.identity.ca import EmbeddedCA, Issuer
from ambient.model.errors import SourceError
from ambient.model.mesh import Workload
from ambient.model.world import World
from ambient.sources import directory


class Upstream(Protocol):
    @property
    def issuer(self) -> Issuer: ...

    def watch(self) -> AsyncGenerator[World | SourceError, None]:
        """See sources.directory.watch."""

    def tell(self, captured: Iterable[Workload], failures: Mapping[str, str], pods: Mapping[str, Workload]) -> None:
        """What is captured on this node, and what is not though it should be: reasons by workload key."""

    def jobs(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs as long as the agent does, by name."""


@dataclass(frozen=True, slots=True)
class Directory:
    settings: config.AgentSettings
    issuer: Issuer

    @classmethod
    def open(cls, settings: config.AgentSettings) -> Directory:
        """Raises CaUnusable."""
        assert settings.ca_dir is not None
        return cls(settings, EmbeddedCA.open(settings.ca_dir, settings.mesh.trust_domain))

    def watch(self) -> AsyncGenerator[World | SourceError, None]:
        assert self.settings.source is not None
        return directory.watch(self.settings.source, self.settings.mesh)

    def tell(self, captured: Iterable[Workload], failures: Mapping[str, str], pods: Mapping[str, Workload]) -> None:
        """Nobody asks."""

    def jobs(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {}


class ControlPlane:
    def __init__(self, settings: config.AgentSettings) -> None:
        from ambient.xds import ca_client, client, dial, nodes, short, trust  # an agent without one does not load it

        assert settings.control is not None
        self._trust = trust.Trust(settings.control.roots)
        control = dial.ControlPlane(
            targets=settings.control.targets,
            server_name=settings.control.server_name,
            trust=self._trust,
            token=settings.control.token,
        )
        call = short.ShortCalls(control)
        self._nodes = nodes
        self._client = client.Client(control, client.NodeName(node=settings.node), settings.mesh)
        self._reporter = nodes.Reporter(call)
        self.issuer: Issuer = ca_client.ControlIssuer(call, self._trust)

    def watch(self) -> AsyncGenerator[World | SourceError, None]:
        return self._client.watch()

    def tell(self, captured: Iterable[Workload], failures: Mapping[str, str], pods: Mapping[str, Workload]) -> None:
        nodes = self._nodes
        self._reporter.tell(
            nodes.Report(
                captured=frozenset(nodes.PodRef(pod.namespace, pod.name, pod.uid) for pod in captured),
                failures=tuple(
                    nodes.Failure(nodes.PodRef(pod.namespace, pod.name, pod.uid), "CaptureFailed", why)
                    for key, why in sorted(failures.items())
                    if (pod := pods.get(key))
                ),
            )
        )

    def jobs(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {"reports": self._reporter.run(), "roots": self._follow_roots()}

    async def _follow_roots(self) -> None:
        async for pem in self._client.watch_roots():
            self._trust.tell(pem)


def of(settings: config.AgentSettings) -> Upstream:
    """Raises CaUnusable."""
    return ControlPlane(settings) if settings.control else Directory.open(settings)
