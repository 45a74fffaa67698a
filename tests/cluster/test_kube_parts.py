"""The pure parts of hack/kube: names, addresses, configuration, cgroup mounts, the build's key, the pause image."""

from __future__ import annotations

import io
import ipaddress
import json
import tarfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hack.kube import ClusterError, archive, cgroups, components, config, dns, layout, network
from hack.kube.pki import Authority

ONE, TWO = layout.nodes()
HYBRID = """tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
"""


def test_cgroup_v2_is_found_beside_v1_and_alone() -> None:
    hybrid = cgroups.Hierarchies.of(HYBRID)
    assert hybrid.top == Path("/sys/fs/cgroup/unified/ambient-kube")
    assert hybrid.v1 == (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/memory"))
    alone = cgroups.Hierarchies.of("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert (alone.top, alone.v1) == (Path("/sys/fs/cgroup/ambient-kube"), ())


def test_a_machine_without_cgroup_v2_is_told_what_to_do() -> None:
    with pytest.raises(ClusterError, match="mount -t cgroup2"):
        cgroups.Hierarchies.of("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")


def test_a_cgroup_is_made_in_every_hierarchy_and_can_be_joined_at_once(tmp_path: Path) -> None:
    unified, cpuset = tmp_path / "unified", tmp_path / "cpuset"
    for directory in (unified, cpuset):
        directory.mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):
        (cpuset / file).write_text("0-1")
    made = cgroups.Hierarchies(unified, (cpuset,)).add("node1")
    assert made == [unified / "ambient-kube/node1", cpuset / "ambient-kube/node1"]
    assert (cpuset / "ambient-kube/cpuset.cpus").read_text() == "0-1"
    assert (cpuset / "ambient-kube/node1/cpuset.mems").read_text() == "0-1"


def test_only_controllers_that_are_there_are_delegated(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory rdma\n")
    cgroups.Hierarchies(tmp_path, ()).delegate(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"


def test_the_nodes_networks_are_parts_of_the_clusters_and_do_not_overlap() -> None:
    for family, whole in enumerate(layout.POD_NETWORKS):
        one, two = (ipaddress.ip_network(node.pod_networks[family]) for node in (ONE, TWO))
        cluster = ipaddress.ip_network(whole)
        assert not one.overlaps(two)
        assert all(net.version == cluster.version and net.subnet_of(cluster) for net in (one, two))  # type: ignore[arg-type]
        assert not cluster.overlaps(ipaddress.ip_network(layout.SERVICE_NETWORKS[family]))
        assert ipaddress.ip_address(layout.DNS_SERVICE_IPS[family]) in ipaddress.ip_network(
            layout.SERVICE_NETWORKS[family]
        )


def test_a_node_knows_the_way_to_the_others_pods_only() -> None:
    lines = network.node_lines(ONE, [TWO])
    assert f"route add {TWO.pod_networks[0]} via {TWO.ips[0]}" in lines
    assert f"route add {TWO.pod_networks[1]} via {TWO.ips[1]}" in lines
    assert not any(f"route add {own} via" in line for own in ONE.pod_networks for line in lines)


def test_a_nodes_cni_configuration_has_its_own_networks() -> None:
    plugins = json.loads(config.conflist(TWO))["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["without-dad", "ptp", "portmap"]
    assert plugins[1]["ipam"]["ranges"] == [[{"subnet": network}] for network in TWO.pod_networks]


def test_every_plugin_that_is_configured_is_installed() -> None:
    plugins = json.loads(config.conflist(ONE))["plugins"]
    used = {plugin["type"] for plugin in plugins} | {plugins[1]["ipam"]["type"]}
    assert used <= {*config.CNI_PLUGINS, config.WITHOUT_DAD}


def test_dns_is_where_kubelets_tell_pods_to_ask() -> None:
    service = next(body for body in dns.objects() if body["kind"] == "Service")
    assert service["spec"]["clusterIP"] in config.kubelet()["clusterDNS"]
    slices = [body for body in dns.objects() if body["kind"] == "EndpointSlice"]
    assert [ip for body in slices for ip in body["endpoints"][0]["addresses"]] == list(layout.CONTROL_PLANE_IPS)
    assert f"bind {' '.join(layout.CONTROL_PLANE_IPS)}" in dns.corefile()


def test_a_certificate_says_who_it_is_as_kubernetes_reads_it() -> None:
    authority = Authority.new()
    pair = authority.issue("system:node:node1", groups=["system:nodes"], names=["node1", "fd00::1"])
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    assert certificate.subject.rfc4514_string() == "CN=system:node:node1,O=system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("fd00::1")]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.certificate))
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_the_pause_image_is_an_oci_archive_and_the_same_every_time() -> None:
    made = archive.of_program("localhost/pause:1", "/pause", b"a program")
    assert made == archive.of_program("localhost/pause:1", "/pause", b"a program")
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:

        def blob(descriptor: dict[str, str]) -> bytes:
            file = tar.extractfile("blobs/" + descriptor["digest"].replace(":", "/"))
            assert file is not None
            return file.read()

        index = tar.extractfile("index.json")
        assert index is not None
        described = json.load(index)["manifests"][0]
        assert described["annotations"]["org.opencontainers.image.ref.name"] == "localhost/pause:1"
        manifest = json.loads(blob(described))
        assert json.loads(blob(manifest["config"]))["config"]["Entrypoint"] == ["/pause"]
        with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0]))) as layer:
            assert layer.getmember("pause").mode == 0o755


def test_a_build_is_found_again_until_its_sources_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "components"
    (sources / "kubernetes").mkdir(parents=True)
    (sources / "kubernetes/go.sum").write_text("one")
    monkeypatch.setattr(components, "SOURCES", sources)
    first = components.directory()
    assert components.directory() == first
    (sources / "kubernetes/go.sum").write_text("two")
    assert components.directory() != first


def test_kwok_is_built_once_and_asks_for_no_build_of_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def build(module: Path, output: Path, flags: str = "", package: str = ".") -> None:
        assert (module / "go.mod").exists()
        assert f"tool {package}" in (module / "go.mod").read_text()
        output.write_text(flags)
        made.append(output)

    monkeypatch.setattr(layout, "CACHE", tmp_path)
    monkeypatch.setattr(components, "_go", build)
    found = components.build_kwok()
    assert found.exists()
    assert components.build_kwok() == found
    assert len(made) == 1
    assert not components.directory().exists()
    assert "building kwok" in capsys.readouterr().out


def test_programs_that_are_not_built_are_missed_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CACHE", tmp_path)
    with pytest.raises(ClusterError, match="make kube-components"):
        components.built()


def test_the_version_that_the_programs_report_is_their_modules() -> None:
    assert components.kubernetes_version().startswith("v1.")
