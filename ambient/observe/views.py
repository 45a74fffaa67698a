"""What `ambient get` shows: the World and what an agent holds, as flat rows in a stable order. Pure.

A value is text, a number, a bool, a list of texts, or None: not known. Names are the same in JSON and in the header of
a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ambient.model.mesh import AuthorizationPolicy, PeerAuthentication, Service, TrafficPolicy, Workload
from ambient.model.world import World
from ambient.observe.records import Open, rfc3339

Row = dict[str, object]


def workloads(world: World, state: Callable[[str], str]) -> list[Row]:
    """`state`: of this agent's pods by key ("captured", or why not); "" for a pod it has nothing to do with."""
    return [_workload(world, workload, state(key)) for key, workload in sorted(world.workloads.items())]


def _workload(world: World, workload: Workload, state: str) -> Row:
    return {
        "namespace": workload.namespace,
        "name": workload.name,
        "node": workload.node,
        "uid": workload.uid,
        "addresses": [str(address) for address in workload.addresses],
        "ready": workload.ready,
        "enrolled": workload.enrolled,
        "state": state,
        "identity": str(workload.identity(world.mesh.trust_domain)) if workload.enrolled else "",
        "services": [service.key for service in world.services_of(workload)],
        "probe_ports": sorted(workload.probe_ports),
    }


def services(world: World) -> list[Row]:
    return [_service(world, service) for _, service in sorted(world.services.items())]


def _service(world: World, service: Service) -> Row:
    endpoints = world.endpoints.get(service.key, ())
    ready = {endpoint.workload for endpoint in endpoints if endpoint.ready}
    return {
        "namespace": service.namespace,
        "name": service.name,
        "vips": [str(vip) for vip in service.vips] or ["headless"],
        "ports": [f"{port.port}->{port.target}" for port in service.ports],
        "ready": sorted(ready),
        "not_ready": sorted({endpoint.workload for endpoint in endpoints} - ready),
        "distribution": service.distribution.value or "any",
        "local_only": service.local_only,
    }


def policies(world: World) -> list[Row]:
    """Every kind of policy together: what may refuse a connection."""
    rows = [_authorization(world, policy) for _, policy in sorted(world.policies.items())]
    rows += [_authentication(world, policy) for _, policy in sorted(world.peer_authentications.items())]
    return rows + [_traffic(world, policy) for _, policy in sorted(world.traffic_policies.items())]


def _authorization(world: World, policy: AuthorizationPolicy) -> Row:
    return {
        "kind": "AuthorizationPolicy",
        "namespace": policy.namespace,
        "name": policy.name,
        "scope": _scope(world, policy),
        "selector": _selector(policy.selector),
        "does": policy.action.value,
        "rules": len(policy.rules),
        "dry_run": policy.dry_run,
    }


def _authentication(world: World, policy: PeerAuthentication) -> Row:
    ports = [f"{port}={mode.value}" for port, mode in sorted(policy.port_modes.items())]
    return {
        "kind": "PeerAuthentication",
        "namespace": policy.namespace,
        "name": policy.name,
        "scope": _scope(world, policy),
        "selector": _selector(policy.selector),
        "does": " ".join([policy.mode.value if policy.mode else "UNSET", *ports]),
        "rules": 0,
        "dry_run": False,
    }


def _traffic(world: World, policy: TrafficPolicy) -> Row:
    says = [policy.outbound.value if policy.outbound else ""]
    if policy.require_mtls is not None:
        says.append("mtls required" if policy.require_mtls else "mtls optional")
    return {
        "kind": "TrafficPolicy",
        "namespace": policy.namespace,
        "name": policy.name,
        "scope": _scope(world, policy),
        "selector": _selector(policy.selector),
        "does": " ".join(filter(None, says)),
        "rules": len(policy.allowed),
        "dry_run": False,
    }


def _scope(world: World, policy: AuthorizationPolicy | PeerAuthentication | TrafficPolicy) -> str:
    if policy.selector:
        return "workloads"
    return "mesh" if policy.namespace == world.mesh.root_namespace else "namespace"


def _selector(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def connections(found: Iterable[Open]) -> list[Row]:
    """The oldest first; bytes so far, None where they are not known."""
    ordered = sorted(found, key=lambda each: (each.ending.started_ns, each.ending.connection))
    return [_connection(each) for each in ordered]


def _connection(found: Open) -> Row:
    flow, ending, counted = found
    return {
        "connection": ending.connection,
        "start": rfc3339(ending.started_ns),
        "reporter": flow.reporter,
        "source": _key(flow.source.namespace, flow.source.workload),
        "source_address": ending.source or flow.source.address,
        "destination": _key(flow.destination.namespace, flow.destination.workload),
        "destination_address": ending.dialled or ending.destination or flow.destination.address,
        "destination_service": flow.service,
        "source_principal": _spiffe(flow.source.principal),
        "destination_principal": _spiffe(flow.destination.principal),
        "path": flow.path,
        "verdict": flow.verdict,
        "rule": flow.rule,
        "bytes_sent": ending.sent if counted else None,
        "bytes_received": ending.received if counted else None,
    }


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace and name else name


def _spiffe(principal: str) -> str:
    return "spiffe://" + principal if principal else ""
