"""Two rules and one table in an enrolled pod's network namespace: what bears our mark comes back in over lo.

    ip rule add priority 1508 fwmark 0x53a/0xfff lookup 15008
    ip rule add priority 1509 fwmark 0x53a/0xfff prohibit
    ip route add local default dev lo src POD_IP table 15008        (and -6)
    ip route add local default dev eth0 src POD_IP table 15008 metric INDEX    (each other device that is up; IPv4)

The second rule is for when the first or the route is gone: a marked connection is refused, not routed like any other.
The other devices' routes are for sockets bound to one of them, which can be only after they connected. Those do not see
lo's route, and IPv4 believes the destination of what it has no route for to be on that device's link: no rule helps.
IPv6 believes nothing. Their metrics only keep them apart, behind lo's.

Works in the calling thread's namespace (netns.run). Touches nothing that is not exactly ours.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from ambient.capture import abi, netns
from ambient.capture.errors import CaptureError
from ambient.capture.rtnetlink import ROUTE, RULE, Entry, Flag, Kind, Rtnetlink
from ambient.model.mesh import IPAddress, address

TABLE = 15008
PRIORITY = 1508  # after `local` (0), before anything that routes by address; ours only looks at our mark
_LOOKUP, _PROHIBIT = 1, 8  # FR_ACT_TO_TBL, FR_ACT_PROHIBIT
_LO = 1
_UP = 1  # IFF_UP
_STATIC, _LOCAL = 4, 2  # RTPROT_STATIC, RTN_LOCAL
_SCOPES = {socket.AF_INET: 254, socket.AF_INET6: 0}  # RT_SCOPE_HOST; IPv6 has none
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
# Attributes: FRA_*, RTA_*, IFA_* and IFLA_*
_RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK = 6, 10, 15, 16
_ROUTE_DEVICE, _ROUTE_METRIC, _ROUTE_SOURCE, _ROUTE_TABLE = 4, 6, 7, 15
_ADDRESS, _ADDRESS_LOCAL, _LINK_NAME = 1, 2, 3


@dataclass(frozen=True, slots=True)
class _Rule:
    """One of our rules, in either family."""

    name: str
    priority: int
    action: int
    table: int

    def header(self, family: int) -> bytes:
        return RULE.pack(family, 0, 0, 0, 0, 0, 0, self.action, 0)

    @property
    def attributes(self) -> dict[int, int | bytes]:
        mark: dict[int, int | bytes] = {_RULE_MARK: abi.MARK, _RULE_MASK: abi.MARK_MASK}
        return {_RULE_PRIORITY: self.priority, **mark, **({_RULE_TABLE: self.table} if self.table else {})}

    def is_it(self, rule: Entry) -> bool:
        found = (rule.number(each) or 0 for each in (_RULE_PRIORITY, _RULE_MARK, _RULE_MASK, _RULE_TABLE))
        return (_action(rule), *found) == (self.action, self.priority, abi.MARK, abi.MARK_MASK, self.table)


_RULES = (_Rule("rule", PRIORITY, _LOOKUP, TABLE), _Rule("prohibiting rule", PRIORITY + 1, _PROHIBIT, 0))


def ensure(addresses: Iterable[IPAddress]) -> list[str]:
    """Make rule and table right; says what was not. The routes' source is the pod's first address of each family."""
    sources = {socket.AF_INET6 if ip.version == 6 else socket.AF_INET: ip for ip in reversed(tuple(addresses))}
    changed = []
    with Rtnetlink() as kernel:
        for family, name in _families():
            source, outlets = sources.get(family), _outlets(kernel, family)
            # Asked for, because the kernel takes any source for a local route once our table makes every address local.
            if outlets and source and source not in addresses_here(kernel, family):
                raise CaptureError(
                    f"the pod's network namespace does not have the address {source}: is it the right one?"
                )
            try:
                known = _routes(kernel, family)
                missing = [index for index in outlets if not any(_is_route(each, source, index) for each in known)]
                for index in missing:
                    kernel.change(
                        Kind.NEW_ROUTE, Flag.CREATE | Flag.REPLACE, _header(family), _attributes(source, index)
                    )
                if missing:
                    changed.append(f"{name} route by {', '.join(outlets[index] for index in missing)}")
                there = kernel.dump(Kind.GET_RULES, family)
                for ours in _RULES:
                    if not any(map(ours.is_it, there)):
                        kernel.change(Kind.NEW_RULE, Flag.CREATE | Flag.EXCLUSIVE, ours.header(family), ours.attributes)
                        changed.append(f"{name} {ours.name}")
            except OSError as error:
                raise CaptureError(
                    f"cannot add the {name} rules and route for marked connections (source {source}): {error};"
                    " is lo up in the pod?"
                ) from error
    return changed


def remove() -> None:
    """Take rules and table away again; what is already gone is fine."""
    with Rtnetlink() as kernel:
        for family, _ in _families():
            there = kernel.dump(Kind.GET_RULES, family)
            for ours in _RULES:
                for _ in filter(ours.is_it, there):
                    kernel.change(Kind.DELETE_RULE, Flag(0), ours.header(family), ours.attributes)
            for route in _routes(kernel, family):
                source = route.attributes.get(_ROUTE_SOURCE)
                attributes = _attributes(address(source) if source else None, route.number(_ROUTE_DEVICE) or _LO)
                kernel.change(Kind.DELETE_ROUTE, Flag(0), _header(family), attributes)


def foreign_rules() -> list[str]:
    """Rules of others that look at our marks' bits or use our table: they would fight with ours."""
    found = []
    with Rtnetlink() as kernel:
        for family, name in _families():
            for rule in kernel.dump(Kind.GET_RULES, family):
                mark, table = rule.number(_RULE_MARK), rule.number(_RULE_TABLE)
                mask = rule.number(_RULE_MASK) or 0
                ours = any(each.is_it(rule) for each in _RULES)
                bits = mask & abi.MARK_MASK
                marks = {each & bits for each in (abi.MARK, abi.MARK_DIRECT)}
                catches_ours = mark is not None and bits != 0 and mark & bits in marks
                if not ours and (table == TABLE or catches_ours):
                    does = f"lookup {table}" if table else f"action {_action(rule)}"
                    priority = rule.number(_RULE_PRIORITY) or 0
                    found.append(f"{name} rule {priority}: fwmark {mark or 0:#x}/{mask:#x} {does}")
    return found


def addresses_here(kernel: Rtnetlink, family: int = socket.AF_UNSPEC) -> frozenset[IPAddress]:
    """Every address of every interface of the namespace."""
    entries = kernel.dump(Kind.GET_ADDRESSES, family)
    found = (entry.attributes.get(_ADDRESS_LOCAL) or entry.attributes.get(_ADDRESS) for entry in entries)
    return frozenset(address(packed) for packed in found if packed)


def _families() -> list[tuple[socket.AddressFamily, str]]:
    """Those that the kernel knows."""
    return [each for each in _FAMILIES.items() if each[0] == socket.AF_INET or netns.has_ipv6()]


def _outlets(kernel: Rtnetlink, family: int) -> dict[int, str]:
    """The devices that need a route of ours, by index: lo first, for everybody.

    None where IPv6 is switched off: then the rules wait alone, and prohibit it until its route is there.
    """
    if family == socket.AF_INET6 and not netns.loopback_has_ipv6():
        return {}
    others: dict[int, str] = {}
    for link in kernel.dump(Kind.GET_LINKS) if family == socket.AF_INET else ():
        _, _, _, index, flags, _ = link.fields
        if flags & _UP:
            others[index] = link.attributes[_LINK_NAME].rstrip(b"\0").decode()
    return {_LO: "lo"} | others


def _routes(kernel: Rtnetlink, family: int) -> list[Entry]:
    return [route for route in kernel.dump(Kind.GET_ROUTES, family) if route.number(_ROUTE_TABLE) == TABLE]


def _header(family: int) -> bytes:
    return ROUTE.pack(family, 0, 0, 0, 0, _STATIC, _SCOPES[socket.AddressFamily(family)], _LOCAL, 0)


def _attributes(source: IPAddress | None, outlet: int) -> dict[int, int | bytes]:
    metric = {} if outlet == _LO else {_ROUTE_METRIC: outlet}
    return {_ROUTE_DEVICE: outlet, _ROUTE_TABLE: TABLE, **metric, **({_ROUTE_SOURCE: source.packed} if source else {})}


def _is_route(route: Entry, source: IPAddress | None, outlet: int) -> bool:
    _, dst_len, *_, kind, _ = route.fields
    there = route.number(_ROUTE_DEVICE), route.attributes.get(_ROUTE_SOURCE)
    return (kind, dst_len, *there) == (_LOCAL, 0, outlet, source.packed if source else None)


def _action(rule: Entry) -> int:
    return rule.fields[7]
