"""`daemonset.yaml` agrees with itself and with what docs/security.md says of its privileges."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import ambient
from ambient import config
from ambient.agent.cni import apiserver, removal
from ambient.cli.uninstall import AGENT_S, uninstall
from ambient.control import enforcement
from ambient.dataplane import process

ROOT = Path(__file__).parents[1]
MANIFESTS = [body for body in yaml.safe_load_all((ROOT / "daemonset.yaml").read_text()) if body]
SECURITY = (ROOT / "docs/security.md").read_text()


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return dict(found)


def pod(daemonset: str) -> dict[str, Any]:
    found: dict[str, Any] = find("DaemonSet", daemonset)["spec"]["template"]["spec"]
    return found


def host_paths(daemonset: str) -> dict[str, str]:
    """By volume."""
    return {each["name"]: each["hostPath"]["path"] for each in pod(daemonset)["volumes"] if "hostPath" in each}


def mounts(daemonset: str) -> dict[str, str]:
    (container,) = pod(daemonset)["containers"]
    return {each["name"]: each["mountPath"] for each in container["volumeMounts"]}


def options(words: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words) if name.startswith("--")}


def test_each_object_stands_there_once() -> None:
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in MANIFESTS]
    assert [key for key in keys if keys.count(key) > 1] == []


@pytest.mark.parametrize("daemonset", ["ambient-agent", "ambient-engine"])
def test_every_capability_and_every_path_of_the_node_is_justified(daemonset: str) -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("| `")]
    (container,) = pod(daemonset)["containers"]
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    for needed in (*capabilities["add"], *host_paths(daemonset).values()):
        assert any(f"`{needed}`" in row.split("|")[1] for row in rows), f"docs/security.md does not say why {needed}"


@pytest.mark.parametrize("daemonset", ["ambient-agent", "ambient-engine"])
def test_neither_daemon_gains_privileges_or_writes_to_its_image(daemonset: str) -> None:
    (container,) = pod(daemonset)["containers"]
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert not pod(daemonset)["automountServiceAccountToken"]


def test_pods_cannot_reach_the_port_of_the_control_planes_probes() -> None:
    """Who keeps its few places taken has the replicas restarted. A pod's own node, and so kubelet, is always let in."""
    (container,) = find("Deployment", "ambient-control")["spec"]["template"]["spec"]["containers"]
    open_to_all = {
        each["port"] for rule in find("NetworkPolicy", "ambient-control")["spec"]["ingress"] for each in rule["ports"]
    }
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("liveness", "readiness")} == {"health"}
    assert open_to_all == {"grpc", "metrics"}


def test_no_pod_reaches_the_port_of_the_agents_probes_and_they_are_patient() -> None:
    """The agent is on the node's network, which pods reach; its loopback they do not."""
    (container,) = pod("ambient-agent")["containers"]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert {(each["httpGet"]["host"], each["httpGet"]["port"]) for each in probes.values()} == {("127.0.0.1", "health")}
    assert config.AgentSettings.__dataclass_fields__["health_address"].default == "127.0.0.1"
    assert "--health-address" not in options(container["args"])
    paths = {kind: each["httpGet"]["path"] for kind, each in probes.items()}
    assert paths == {"startup": "/healthz/live", "liveness": "/healthz/live", "readiness": "/healthz/ready"}
    live, start = probes["liveness"], probes["startup"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 120, "minutes of silence, not a slow moment"
    assert start["periodSeconds"] * start["failureThreshold"] >= 600, "it may wait for an engine"


def test_every_container_runs_the_image_of_this_version() -> None:
    """A tag that moves is what some nodes pull and others do not."""
    pods = [each["spec"]["template"]["spec"] for each in MANIFESTS if "template" in each.get("spec", {})]
    images = [container["image"] for each in pods for container in each["containers"]]
    assert images == [f"localhost/ambient:{ambient.__version__}"] * 3
    labels = find("DaemonSet", "ambient-agent")["spec"]["template"]["metadata"]["labels"]
    assert labels[enforcement.VERSION] == ambient.__version__
    assert enforcement.AGENT.items() <= labels.items()
    assert f"REGISTRY/ambient:{ambient.__version__}" in (ROOT / "docs/install.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (project["project"]["dynamic"], project["tool"]["hatch"]["version"]["path"]) == (
        ["version"],
        "ambient/__init__.py",
    )


def test_what_is_built_is_called_as_the_manifest_calls_it() -> None:
    said = subprocess.run([ROOT / "hack/image/reference.sh"], capture_output=True, text=True, check=True).stdout
    assert said == f"localhost/ambient:{ambient.__version__}\n"


def test_the_plugin_on_the_node_finds_the_agents_socket_where_the_agent_made_it() -> None:
    assert host_paths("ambient-agent")["run"] == mounts("ambient-agent")["run"]


def test_what_the_agent_installs_into_is_mounted_and_what_its_hook_removes_is_the_same() -> None:
    (container,) = pod("ambient-agent")["containers"]
    told = options(container["args"])
    assert (told["--cni-bin-dir"], told["--cni-conf-dir"]) == (
        mounts("ambient-agent")["cni-bin"],
        mounts("ambient-agent")["cni-conf"],
    )
    defaults = {parameter.name: str(parameter.default) for parameter in uninstall.params}
    assert (told["--cni-bin-dir"], told["--cni-conf-dir"]) == (defaults["cni_bin_dir"], defaults["cni_conf_dir"])
    assert told["--cni-agents"].endswith("/ambient-system_ambient-agent-")


def test_the_hook_asks_for_its_own_daemonset_and_has_the_time_and_the_rights_for_it() -> None:
    (container,) = pod("ambient-agent")["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["ambient", "uninstall", "--if-daemonset-gone", "ambient-system/ambient-agent"]
    wait = next(each.default for each in uninstall.params if each.name == "wait_s")
    asking = removal.PATIENCE_S + 2 * apiserver.TIMEOUT_S + AGENT_S
    assert pod("ambient-agent")["terminationGracePeriodSeconds"] >= asking + float(str(wait))
    assert mounts("ambient-agent")["api"] == str(apiserver.CREDENTIALS)
    assert options(container["args"])["--daemonset"] == command[-1]
    rights = {
        (group, resource, *rule["resourceNames"], *rule["verbs"])
        for rule in find("Role", "ambient-agent")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    daemonset = ("apps", "daemonsets", "ambient-agent", "get", "watch")
    assert rights == {daemonset, ("", "namespaces", "ambient-system", "get")}


def test_the_engine_says_that_it_is_of_this_version() -> None:
    said = subprocess.run([process.BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"ambient-engine {ambient.__version__}+")
