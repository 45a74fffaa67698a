"""The image: all of ours works in it without a privilege, and there is nothing else that an intruder could use."""

from __future__ import annotations

import pytest

from hack.kube import Cluster
from tests.cluster.manifests import AMBIENT_IMAGE, pod
from tests.cluster.space import Space

pytestmark = pytest.mark.cluster
PYTHON = "/opt/ambient/bin/python"
BARE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "seccompProfile": {"type": "RuntimeDefault"},
}
EVERYTHING = """
import ctypes, importlib, pathlib, pkgutil, subprocess, ambient
for module in pkgutil.walk_packages(ambient.__path__, "ambient."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
ctypes.CDLL("libbpf.so.1")
native = pathlib.Path(ambient.__file__).parent / "native"
print(subprocess.run([native / "ambient-engine", "--version"], capture_output=True, text=True, check=True).stdout)
print(*sorted(path.name for path in native.iterdir()))
"""
SUSPECTS = """
import os, stat
names = {"apt", "ash", "bash", "cc", "clang", "curl", "dash", "dpkg", "gcc", "ld", "make", "perl", "pip", "sh"}
for directory, _, files in os.walk("/"):
    if directory.startswith(("/proc", "/sys", "/dev", "/etc/ssl")):
        continue
    for file in files:
        path = os.path.join(directory, file)
        mode = os.lstat(path).st_mode
        if file in names or mode & (stat.S_ISUID | stat.S_ISGID):
            print(path)
        if file.endswith(".py") and directory.startswith(("/opt", "/usr")):
            if not os.path.exists(f"{directory}/__pycache__/{file[:-3]}.cpython-311.pyc"):
                print("not compiled:", path)
"""


def said(space: Space, *command: str) -> str:
    """What the image's program printed, run with nothing that a pod can do without."""
    container = {"image": AMBIENT_IMAGE, "imagePullPolicy": "Never", "securityContext": BARE}
    space.apply(pod("image", "node1", *command, container=container, restartPolicy="Never"))
    space.kubectl(
        "wait", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=60s", "pod/image"
    )
    log = space.kubectl("logs", "image")
    code = space.get("pod", "image")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    assert code == 0, log
    return log


def test_every_module_can_be_imported_and_the_engine_starts(space: Space) -> None:
    log = said(space, PYTHON, "-c", EVERYTHING)
    assert "ambient-engine " in log
    assert "connect.bpf.o" in log


def test_its_command_is_the_cli(space: Space) -> None:
    assert "version" in said(space, "ambient", "--version")


def test_there_is_no_shell_no_compiler_no_package_manager_and_nothing_left_to_compile(space: Space) -> None:
    assert said(space, PYTHON, "-c", SUSPECTS) == ""


def test_the_nodes_have_it_without_a_registry(cluster: Cluster) -> None:
    for node in cluster.get("nodes")["items"]:
        names = {name for image in node["status"]["images"] for name in image["names"]}
        assert AMBIENT_IMAGE in names
