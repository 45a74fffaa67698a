"""`ambient explain`: what would happen to a connection, by the very functions that decide it. Pure.

The client's side is route.plan(), the server's policy.decide(), on one node by way of samenode.between() and of what
the node's agent has met. What neither knows is not guessed: endpoints set aside for a moment, certificates not issued
yet and whether the app listens are not in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from ambient.model import policy, route, samenode
from ambient.model.mesh import IPAddress, Workload
from ambient.model.world import World
from ambient.observe import names

Row = dict[str, object]
InTheWay = Callable[[str, str], str]  # what keeps a client and a server, by workload key, from the direct path


def explain(
    world: World,
    source: str,
    to: str,
    *,
    node: str = "",
    host: Container[IPAddress] = (),
    in_the_way: InTheWay = lambda *_: "",
) -> Row:
    """`source`: NAMESPACE/POD; `to`: HOST:PORT. Raises ValueError when either means nothing here.

    `host`: the addresses of `node`. `in_the_way`: on it, besides what the World says; empty: nothing.

    `verdict` is allow, deny, or depends: on which of the endpoints is chosen.
    """
    who = names.client(world, source)
    host, met = (host, in_the_way) if who.node == node else ((), _nothing)
    named = names.resolve(world, who, to)
    outside = _not_captured(who, named.addresses[0], named.port)
    endpoints: list[Row] = []
    says: list[str] = []
    for ip in named.addresses:
        if outside:
            says.append(outside)
            endpoints += _uncaptured(world, who, ip, named.port)
            continue
        match route.plan(world, who, ip, named.port, host=host):
            case route.Refuse() as refused:
                says.append(refused.why)
                endpoints.append(_row(ip, named.port, "none", "deny", reason=refused.reason, why=refused.why))
            case route.Passthrough() as passed:
                says.append(passed.why)
                endpoints.append(_row(ip, named.port, "plaintext", "allow", rule="outside the mesh", why=passed.why))
            case route.Carry() as carry:
                says.append(carry.why)
                may_choose = len(carry.choices) <= samenode.MOST_ENDPOINTS
                endpoints += [_carried(world, who, choice, met, kernel=may_choose) for choice in carry.choices]
    verdicts = {str(row["verdict"]) for row in endpoints}
    return {
        "from": who.key,
        "node": who.node,
        "to": to,
        "resolved": f"{named.what}: {', '.join(_show(ip, named.port) for ip in named.addresses)}",
        "captured": not outside,
        "verdict": verdicts.pop() if len(verdicts) == 1 else "depends",
        "plan": "; ".join(dict.fromkeys(says)),
        "endpoints": endpoints,
    }


def _not_captured(who: Workload, ip: IPAddress, port: int) -> str:
    if not who.enrolled:
        return f"pod {who.key} is not enrolled: its traffic leaves as it is"
    if port in who.capture.exclude_outbound_ports:
        return f"ambient.dev/exclude-outbound-ports of pod {who.key} names {port}"
    for network in who.capture.exclude_outbound_cidrs:
        if ip in network:
            return f"ambient.dev/exclude-outbound-cidrs of pod {who.key} names {network}"
    return ""


def _uncaptured(world: World, who: Workload, ip: IPAddress, port: int) -> Iterator[Row]:
    """Where the node's own service routing may take it: any ready endpoint, in the clear."""
    service = world.service_at(ip)
    if service is None:
        pod = world.workload_at(ip)
        if pod is None:
            yield _row(ip, port, "plaintext", "allow", rule="outside the mesh", why="neither end is the mesh's")
        else:
            yield _judged(world, who, pod, ip, port, tunnel=False)
        return
    usable = [e for e in world.endpoints[service.key] if port in e.ports and (e.ready or service.publish_not_ready)]
    if not usable:
        why = f"Service {service.key} has no ready endpoint for port {port}"
        yield _row(ip, port, "none", "deny", reason="no_healthy_endpoint", why=why)
    for endpoint in usable:
        if endpoint.address.version == ip.version:
            server = world.workloads[endpoint.workload]
            yield _judged(world, who, server, endpoint.address, endpoint.ports[port], tunnel=False)


def _nothing(_: str, __: str) -> str:
    return ""


def _carried(world: World, who: Workload, choice: route.Choice, met: InTheWay, *, kernel: bool) -> Row:
    """`kernel`: it may choose, but never what is for when others fail."""
    if choice.workload is None:
        return _row(choice.address, choice.port, "plaintext", "allow", rule="outside the mesh", weight=choice.weight)
    tunnel = choice.identity is not None
    row = _judged(world, who, choice.workload, choice.address, choice.port, tunnel=tunnel)
    if tunnel and kernel and choice.weight and choice.workload.node == who.node:
        judged = samenode.between(world, who, choice.workload, choice.address, choice.port)
        row |= _on_the_node(judged, met(who.key, choice.workload.key))
    return row | {"weight": choice.weight}


def _on_the_node(judged: samenode.Direct | samenode.Indirect, met: str) -> Row:
    if isinstance(judged, samenode.Indirect):
        return {} if judged.reason in policy.REASONS else {"why": f"not directly, though on one node: {judged.why}"}
    return {"why": f"not directly, though on one node: {met}"} if met else {"path": "direct"}


def _judged(world: World, who: Workload, server: Workload, ip: IPAddress, port: int, *, tunnel: bool) -> Row:
    about: Row = {"workload": server.key, "node": server.node}
    if tunnel:
        about["client_identity"] = str(who.identity(world.mesh.trust_domain))
        about["server_identity"] = str(server.identity(world.mesh.trust_domain))
    path = "tunnel" if tunnel else "plaintext"
    if not server.tunnelled:
        why = "the pod is not captured yet" if server.enrolled else "the pod is not enrolled"
        return _row(ip, port, path, "allow", rule="no policy is enforced", why=why) | about
    if not tunnel and port in server.capture.exclude_inbound_ports:
        why = f"ambient.dev/exclude-inbound-ports of pod {server.key} names {port}"
        return _row(ip, port, path, "allow", rule="no policy is enforced", why=why) | about
    peer = who.identity(world.mesh.trust_domain) if tunnel else None
    source = next((own for own in who.addresses if own.version == ip.version), None)
    if source is None:
        why = f"pod {who.key} has no IPv{ip.version} address"
        return _row(ip, port, path, "deny", reason="no_address", why=why) | about
    mode, said_by = policy.mtls_mode(world, server, port)
    about["mtls"] = f"{mode.value} ({said_by})"
    match policy.decide(world, server, peer=peer, source=source, to=ip, port=port):
        case policy.Allow() as allow:
            return _row(ip, port, path, "allow", rule=allow.rule) | about | {"dry_run": list(allow.dry_run)}
        case policy.Deny() as deny:
            return _row(ip, port, path, "deny", rule=deny.rule, reason=deny.reason, why=deny.why) | about


def _row(
    ip: IPAddress,
    port: int,
    path: str,
    verdict: str,
    *,
    rule: str = "",
    reason: str = "",
    why: str = "",
    weight: int = 1,
) -> Row:
    return {
        "address": _show(ip, port),
        "workload": "",
        "node": "",
        "weight": weight,
        "path": path,
        "client_identity": "",
        "server_identity": "",
        "mtls": "",
        "verdict": verdict,
        "rule": rule,
        "reason": reason,
        "why": why,
        "dry_run": [],
    }


def _show(ip: IPAddress, port: int) -> str:
    return f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
