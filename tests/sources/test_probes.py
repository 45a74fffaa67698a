"""Which ports of a pod kubelet dials by itself."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ambient.sources import manifests


def read(spec: str) -> manifests.Translated:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": yaml.safe_load(spec)}
    return manifests.translate(pod)


def probe_ports(spec: str) -> set[int]:
    found: Any = read(spec)
    assert not found.problems, found.problems
    return set(found.object.workload.probe_ports)


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
@pytest.mark.parametrize(
    ("action", "ports"),
    [
        ("httpGet: {path: /healthz, port: 8080}", {8080}),
        ("httpGet: {path: /healthz, port: 8080, host: ''}", {8080}),
        ("httpGet: {port: web, scheme: HTTPS}", {80}),
        ("tcpSocket: {port: 5432}", {5432}),
        ("tcpSocket: {port: dns}", {53}),
        ("tcpSocket: {port: '9000'}", {9000}),
        ("grpc: {port: 9090, service: health}", {9090}),
        ("exec: {command: [true]}", set()),
        ("httpGet: {port: 8080, host: 127.0.0.1}", set()),
        ("tcpSocket: {port: 8080, host: example.org}", set()),
        ("tcpSocket: {port: unknown}", set()),
        ("tcpSocket: {port: '70000'}", set()),
        ("tcpSocket: {port: other}", set()),
    ],
    ids=[
        *("http", "http, no host", "by name, over TLS", "tcp", "a name of a UDP port", "a number in quotes", "grpc"),
        *("a program", "another host", "another host's port", "no such name", "no port", "another container's name"),
    ],
)
def test_a_probe_names_the_port_it_dials(probe: str, action: str, ports: set[int]) -> None:
    assert (
        probe_ports(f"""
containers:
- name: web
  ports: [{{name: web, containerPort: 80}}, {{name: dns, containerPort: 53, protocol: UDP}}]
  {probe}: {{{action}}}
- {{name: second, ports: [{{name: other, containerPort: 81}}]}}
""")
        == ports
    )


def test_every_probe_of_every_container_counts() -> None:
    assert probe_ports("""
initContainers:
- {name: once, readinessProbe: {tcpSocket: {port: 1}}}
- {name: stays, restartPolicy: Always, startupProbe: {tcpSocket: {port: 2}}}
containers:
- name: web
  livenessProbe: {httpGet: {port: 3}}
  readinessProbe: {httpGet: {port: 4}}
- name: second
  readinessProbe: {grpc: {port: 5}}
""") == {2, 3, 4, 5}


def test_hooks_that_kubelet_sends_count_too() -> None:
    assert probe_ports("""
containers:
- name: web
  ports: [{name: admin, containerPort: 9}]
  lifecycle: {postStart: {httpGet: {port: admin}}, preStop: {httpGet: {port: 10}}}
- name: second
  lifecycle: {postStart: {tcpSocket: {port: 11}}, preStop: {httpGet: {port: 12, host: elsewhere}}}
""") == {9, 10}


@pytest.mark.parametrize("port", ["0", "70000", "true", "{}", "null"])
def test_what_is_no_port_is_named(port: str) -> None:
    (problem,) = read(f"containers: [{{name: c, livenessProbe: {{httpGet: {{port: {port}}}}}}}]").problems
    assert problem.path == "spec.containers[0].livenessProbe.httpGet.port"
