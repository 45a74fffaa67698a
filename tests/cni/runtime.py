"""What a container runtime does with a chain of CNI plugins: each gets the result of the one before, on stdin."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = Path(
    os.environ.get("AMBIENT_CNI") or Path(__file__).parent.parent.parent / "ambient" / "native" / "ambient-cni"
)
DEADLINE = 30.0
VERSION = "1.0.0"


class PluginError(Exception):
    """What the plugin printed: code, msg, details."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(f"{said['msg']}; {said.get('details', '')}")
        self.code = int(said["code"])
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One pod's sandbox, as its plugins' environment names it."""

    container: str
    netns: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    def environment(self, command: str) -> dict[str, str]:
        args = {"IgnoreUnknown": "1"}
        given = {"K8S_POD_NAMESPACE": self.namespace, "K8S_POD_NAME": self.name, "K8S_POD_UID": self.uid}
        args |= {key: value for key, value in given.items() if value}
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in args.items()),
            "CNI_PATH": "/usr/lib/cni",
            "PATH": os.environ["PATH"],
            **self.more,
        }


def call(
    program: Path, environment: Mapping[str, str], stdin: bytes, prefix: Iterable[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """The plugin as a process; `prefix`: words before it, to run it elsewhere."""
    words = [*prefix, str(program)]
    return subprocess.run(words, input=stdin, env=dict(environment), capture_output=True, timeout=DEADLINE, check=False)


class Chain:
    """A network of these plugins, in a node's network namespace."""

    def __init__(self, plugins: list[dict[str, Any]], programs: Mapping[str, Path], prefix: Iterable[str] = ()) -> None:
        self.plugins, self.programs, self.prefix = plugins, programs, tuple(prefix)

    def add(self, pod: Attachment) -> bytes:
        """The last plugin's result, as it printed it. Raises PluginError."""
        result = b""
        for plugin in self.plugins:
            result = self._call("ADD", pod, plugin, json.loads(result) if result else None)
        return result

    def delete(self, pod: Attachment) -> None:
        for plugin in reversed(self.plugins):
            self._call("DEL", pod, plugin, None)

    def check(self, pod: Attachment, result: bytes) -> None:
        for plugin in self.plugins:
            self._call("CHECK", pod, plugin, json.loads(result))

    def _call(self, command: str, pod: Attachment, plugin: dict[str, Any], previous: Any) -> bytes:
        config = {"cniVersion": VERSION, "name": "pods", **plugin}
        if previous is not None:
            config["prevResult"] = previous
        done = call(self.programs[plugin["type"]], pod.environment(command), json.dumps(config).encode(), self.prefix)
        if done.returncode:
            raise PluginError(json.loads(done.stdout))
        return done.stdout
