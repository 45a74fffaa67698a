"""The ports of a pod that kubelet dials on its own account: its containers' probes and lifecycle hooks. Pure.

Only what a pod asks for: kubelet dials nothing else. Whether such a port answers is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ambient.sources.reading import Spot

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
KINDS = ("httpGet", "tcpSocket", "grpc")  # exec dials nothing
HOOKS = ("postStart", "preStop")  # of which kubelet performs httpGet, and no tcpSocket


def ports(containers: Iterable[Spot]) -> frozenset[int]:
    """Of containers that may have probes."""
    found = set()
    for container in containers:
        named = _named(container)
        found |= {port for action in _actions(container) if (port := _dialled(action, named))}
    return frozenset(found)


def _actions(container: Spot) -> Iterator[Spot]:
    for probe in PROBES:
        for kind in KINDS:
            yield container.at(probe, kind)
    for hook in HOOKS:
        yield container.at("lifecycle", hook, "httpGet")


def _named(container: Spot) -> Mapping[str, int]:
    """Unlike a Service's, a probe's port name means a port of the same container, whatever its protocol."""
    entries = list(container.mapping().get("ports").items())
    found = {entry.mapping().get("name").text(): entry.get("containerPort").port() for entry in reversed(entries)}
    return {name: port for name, port in found.items() if name and port}


def _dialled(action: Spot, named: Mapping[str, int]) -> int | None:
    """The pod's port that is dialled, if it is one: a host that is named is another, whatever is behind it."""
    if not action or action.mapping().get("host").text():
        return None
    port = action.get("port")
    if not isinstance(port.value, str):
        return port.port()
    number = int(port.value) if port.value.isdecimal() else 0  # as kubelet does when it finds no such name
    return named.get(port.value) or (number if 0 < number < 65536 else None)
