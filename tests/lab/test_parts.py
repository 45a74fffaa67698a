"""The small pure parts: addresses, names of things, $(NAME), files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.lab import addressing, layout, process
from ambient.lab.container import environment, expand
from ambient.lab.errors import Misused, Refused
from ambient.lab.layout import Layout
from ambient.lab.store import Store
from ambient.sources import directory
from tests.lab.builders import a_namespace, a_pod, applied


def test_a_pods_number_is_not_given_again_while_others_are_free() -> None:
    numbers = addressing.PodNumbers()
    first = numbers.take()
    numbers.give_back(first)
    others = [numbers.take() for _ in range(addressing.PODS_PER_NODE - 1)]
    assert first not in others
    assert numbers.take() == first
    with pytest.raises(Refused):
        numbers.take()


def test_every_number_is_an_address_of_the_nodes_networks() -> None:
    node = addressing.NodeAddresses(addressing.NODES_MAX)
    numbers = addressing.PodNumbers()
    for _ in range(addressing.PODS_PER_NODE):
        four, six = addressing.pod_ips(node, numbers.take())
        assert four in node.pods4
        assert four != node.pods4.broadcast_address
        assert six in node.pods6


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "1a", "x" * 21, "a/b"])
def test_a_labs_name_is_plain(name: str) -> None:
    with pytest.raises(Misused, match="lab name"):
        Layout(name, Path("/cgroup"))


def test_links_fit_the_kernels_limit_and_socket_paths_too() -> None:
    found = Layout("l" * 20, Path("/cgroup"))
    assert len(layout.pod_link("a-long-namespace-name/a-long-pod-name")) <= 15
    assert len(layout.node_link(addressing.NODES_MAX)) <= 15
    assert len(str(found.run_dir("n" * 40) / "engine.63.sock")) < 108


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$(A)-$(A)", "1-1"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("", "")],
)
def test_names_of_variables_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_a_container_learns_of_its_pod_by_field_references() -> None:
    pod = a_pod() | {"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "URL", "value": "http://$(IP)"},
        {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
    ]
    found = environment({"env": env}, pod)
    assert {name: found[name] for name in ("IP", "IPS", "NS", "URL", "SA", "HOSTNAME")} == {
        "IP": "10.0.0.1",
        "IPS": "10.0.0.1,fd00::1",
        "NS": "shop",
        "URL": "http://10.0.0.1",
        "SA": "default",
        "HOSTNAME": "web",
    }


def test_the_store_writes_what_changed_and_removes_what_went(tmp_path: Path) -> None:
    cluster, staging = tmp_path / "cluster", tmp_path / "staging"
    cluster.mkdir()
    staging.mkdir()
    store = Store(cluster, staging)
    assert store.write(applied(a_namespace()))
    before = {path.name: path.stat().st_mtime_ns for path in cluster.iterdir()}
    revision = directory.revision(cluster)
    assert not store.write(applied(a_namespace()))
    assert store.write(applied(a_namespace("bank")))
    after = {path.name: path.stat().st_mtime_ns for path in cluster.iterdir()}
    assert after.keys() ^ before.keys() == {"namespace_shop.yaml", "namespace_bank.yaml"}
    assert all(after[name] == before[name] for name in after.keys() & before.keys())
    assert directory.revision(cluster) != revision
    assert not list(staging.iterdir())


def test_the_end_of_a_log_says_what_is_repeated_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert process.last_lines(log) == ""
    log.write_text("first\n" + "again\n" * 50 + "last\n")
    assert process.last_lines(log) == "first\nagain\nlast"
    log.write_text('up\n{"type": "connection"}\n')
    assert process.last_lines(log, records=False) == "up"


def test_the_end_of_a_log_begins_with_a_whole_line_and_finds_what_records_bury(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = '{"type":"connection","rule":"' + "x" * 990 + '"}\n'
    log.write_text("the agent is up\n" + record * 100)
    assert process.last_lines(log, records=False) == "the agent is up"
    log.write_text(record * (process.LAST_BYTES // len(record) + 2))
    assert process.last_lines(log, records=False) == ""
