"""Two rules and one table in an enrolled pod's network namespace: what bears our mark comes back in over lo.

    ip rule add priority 1508 fwmark 0x53a/0xfff lookup 15008
    ip rule add priority 1509 fwmark 0x53a/0xfff prohibit
    ip route add local default dev lo src POD_IP table 15008        (and -6)

The second rule is for when the first or the route is gone: a marked connection is refused, not routed like any other.
Works in the calling thread's namespace (netns.run). Touches nothing that is not exactly ours.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ambient.capture import abi, netns
from ambient.capture.errors import CaptureError
from ambient.model.mesh import IPAddress

TABLE = 15008
PRIORITY = 1508  # after `local` (0), before anything that routes by address; ours only looks at our mark
_LOOKUP, _PROHIBIT = 1, 8  # FR_ACT_TO_TBL, FR_ACT_PROHIBIT
_LO = 1
_LOCAL, _HOST = 2, 254  # RTN_LOCAL, RT_SCOPE_HOST
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


@dataclass(frozen=True, slots=True)
class _Rule:
    """One of our rules, in either family."""

    name: str
    priority: int
    action: int
    table: int

    def request(self, family: int) -> dict[str, Any]:
        mark = {"fwmark": abi.MARK, "fwmask": abi.MARK_MASK}
        target: dict[str, Any] = {"table": self.table} if self.table else {"action": self.action}
        return {"family": family, "priority": self.priority, **mark, **target}

    def is_it(self, rule: Any) -> bool:
        found = (_attribute(rule, name) or 0 for name in ("FRA_PRIORITY", "FRA_FWMARK", "FRA_FWMASK", "FRA_TABLE"))
        return (rule["action"], *found) == (self.action, self.priority, abi.MARK, abi.MARK_MASK, self.table)


_RULES = (_Rule("rule", PRIORITY, _LOOKUP, TABLE), _Rule("prohibiting rule", PRIORITY + 1, _PROHIBIT, 0))


def ensure(addresses: Iterable[IPAddress]) -> list[str]:
    """Make rule and table right; says what was not. The routes' source is the pod's first address of each family."""
    sources = {socket.AF_INET6 if ip.version == 6 else socket.AF_INET: str(ip) for ip in reversed(tuple(addresses))}
    changed = []
    with IPRoute() as routes:
        for family, name in _FAMILIES.items():
            if family == socket.AF_INET6 and not netns.has_ipv6():
                continue  # nothing can leave by it
            source = sources.get(family)
            if source and source not in _present(routes, family):
                raise CaptureError(
                    f"the pod's network namespace does not have the address {source}: is it the right one?"
                )
            try:
                if not _has_route(routes, family, source):
                    routes.route("replace", **_route(family, source))
                    changed.append(f"{name} route")
                there = list(routes.get_rules(family=family))
                for ours in _RULES:
                    if not any(map(ours.is_it, there)):
                        routes.rule("add", **ours.request(family))
                        changed.append(f"{name} {ours.name}")
            except NetlinkError as error:
                raise CaptureError(
                    f"cannot add the {name} rules and route for marked connections (source {source}): {error};"
                    " is lo up in the pod?"
                ) from error
    return changed


def remove() -> None:
    """Take rules and table away again; what is already gone is fine."""
    with IPRoute() as routes:
        for family in _FAMILIES:
            if family == socket.AF_INET6 and not netns.has_ipv6():
                continue
            there = list(routes.get_rules(family=family))
            for ours in _RULES:
                for _ in filter(ours.is_it, there):
                    routes.rule("del", **ours.request(family))
            for route in list(routes.get_routes(family=family, table=TABLE)):
                routes.route("del", **_route(family, _attribute(route, "RTA_PREFSRC")))


def foreign_rules() -> list[str]:
    """Rules of others that look at our mark's bits or use our table: they would fight with ours."""
    found = []
    with IPRoute() as routes:
        for family, name in _FAMILIES.items():
            for rule in list(routes.get_rules(family=family)):
                mark, table = _attribute(rule, "FRA_FWMARK"), _attribute(rule, "FRA_TABLE")
                mask = _attribute(rule, "FRA_FWMASK") or 0
                ours = any(each.is_it(rule) for each in _RULES)
                bits = mask & abi.MARK_MASK
                catches_ours = mark is not None and bits != 0 and mark & bits == abi.MARK & bits
                if not ours and (table == TABLE or catches_ours):
                    priority = _attribute(rule, "FRA_PRIORITY") or 0
                    found.append(f"{name} rule {priority}: fwmark {mark or 0:#x}/{mask:#x} {_does(rule)}")
    return found


def _present(routes: IPRoute, family: int) -> set[str]:
    # Asked for, because the kernel takes any source for a local route once our table makes every address look local.
    found = (
        _attribute(each, "IFA_LOCAL") or _attribute(each, "IFA_ADDRESS") for each in routes.get_addr(family=family)
    )
    return {str(ipaddress.ip_address(text)) for text in found}


def _route(family: int, source: str | None) -> dict[str, Any]:
    route = {"family": family, "type": _LOCAL, "dst": "default", "oif": _LO, "table": TABLE}
    if family == socket.AF_INET:
        route["scope"] = _HOST
    return route | ({"prefsrc": source} if source else {})


def _has_route(routes: IPRoute, family: int, source: str | None) -> bool:
    return any(
        route["type"] == _LOCAL
        and route["dst_len"] == 0
        and _attribute(route, "RTA_OIF") == _LO
        and _attribute(route, "RTA_PREFSRC") == source
        for route in routes.get_routes(family=family, table=TABLE)
    )


def _does(rule: Any) -> str:
    table = _attribute(rule, "FRA_TABLE")
    return f"lookup {table}" if table else f"action {rule['action']}"


def _attribute(message: Any, name: str) -> Any:
    return message.get_attr(name)
