"""Which policies a pod must list, because Istio's workloads name the selector policies that hold for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ambient.model import mesh, policy
from ambient.model.tables import covers
from ambient.model.world import World
from ambient.xds import names, policies


class Selection:
    """Answers for one World; what holds for a whole namespace is found out once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.static_strict = f"{world.mesh.root_namespace}/{names.DERIVED_STRICT}"
        self._selecting: dict[str, tuple[tuple[Mapping[str, str], str], ...]] = {}
        self._inherited: dict[str, mesh.MtlsMode] = {}

    def listed(self, workload: mesh.Workload) -> list[str]:
        """ "namespace/name", sorted."""
        found = [
            key
            for namespace in {workload.namespace, self.world.mesh.root_namespace}
            for selector, key in self._selectors(namespace)
            if covers(selector, workload.labels)
        ]
        return sorted([*found, *self._strict(workload)])

    def inherited(self, namespace: str) -> mesh.MtlsMode:
        """The mode of pods for which no selector says another."""
        if namespace not in self._inherited:
            self._inherited[namespace] = policy.inherited_mtls_mode(self.world, namespace)[0]
        return self._inherited[namespace]

    def _selectors(self, namespace: str) -> tuple[tuple[Mapping[str, str], str], ...]:
        if namespace not in self._selecting:
            here = self.world.policies_in(namespace)
            self._selecting[namespace] = tuple((each.selector, each.key) for each in here if lists(each))
        return self._selecting[namespace]

    def _strict(self, workload: mesh.Workload) -> Iterator[str]:
        """One policy says it all: that of the ports if some are different, else the static one."""
        own = policy.workload_peer_authentication(self.world, workload)
        inherited = self.inherited(workload.namespace)
        if own and policies.port_level(own, inherited):
            yield derived_name(own.key)
        elif ((own and own.mode) or inherited) is mesh.MtlsMode.STRICT:
            yield self.static_strict


def lists(policy: mesh.AuthorizationPolicy | None) -> bool:
    """Whether pods must list it: not if it looks at the whole namespace or mesh, or is a waypoint's."""
    return policy is not None and bool(policy.selector) and not policy.targets


def derived_name(key: str) -> str:
    """Of the policy derived from a PeerAuthentication with port-level modes."""
    namespace, _, name = key.partition("/")
    return f"{namespace}/{names.DERIVED_PREFIX}{name}"
