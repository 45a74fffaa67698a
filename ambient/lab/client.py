"""A lab from outside: the Python API that the CLI, the tests, the demo and the benchmarks use. Blocking; keeps no state
but the lab's name, so that any number of Lab objects may speak of the same lab."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ambient import config
from ambient.lab import layout, linux, manifests, process, rpc, teardown
from ambient.lab.errors import Environment, Gone, LabError, Refused
from ambient.lab.manifests import Document
from ambient.lab.process import Entrance
from ambient.lab.state import State

TIMEOUT_S = 60.0  # for pods to be ready and the mesh to converge; an up takes 5 s
GRACE_S = 15.0  # beyond which a daemon that must answer at `timeout` counts as gone
# The very package that runs here, installed or not: daemon and agents are never of another version.
_PACKAGE_PATH = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
Manifests = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]


class Lab:
    """One lab, which need not exist yet. As a context manager it is taken down at the end."""

    def __init__(self, name: str = "lab", *, base: Path = layout.BASE) -> None:
        try:
            root = config.cgroup2_root()
        except LookupError as error:
            raise Environment(str(error)) from error
        self.layout = layout.Layout(name, root, base)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # Verbs

    def up(
        self, found: Manifests, *, mesh: bool = True, timeout: float = TIMEOUT_S, agent: Sequence[str] | None = None
    ) -> None:
        """Make the lab of these manifests and wait until it is ready.

        What does not become ready stays up, to be looked at; refused manifests leave nothing. `agent`: the command that
        stands for `ambient`, for tests of the lab itself.
        """
        documents = _documents(found)
        if os.geteuid() != 0:
            raise Environment("a lab needs root: network namespaces, cgroups and eBPF are made")
        self._claim()
        try:
            self._start_daemon(mesh, agent)
            self._change("apply", timeout, documents=documents)
        except (Refused, Environment, Gone):
            self.down()
            raise

    def apply(self, found: Manifests, *, timeout: float = TIMEOUT_S) -> None:
        self._change("apply", timeout, documents=_documents(found))

    def delete(self, found: Manifests, *, timeout: float = TIMEOUT_S) -> None:
        self._change("delete", timeout, documents=_documents(found))

    def label(self, target: str, *changes: str, timeout: float = TIMEOUT_S) -> None:
        """`target`: ns/NAME or pod/NAMESPACE/NAME; a change: KEY=VALUE or KEY-."""
        self._change("label", timeout, target=target, changes=list(changes))

    def wait(self, *, timeout: float = TIMEOUT_S) -> None:
        """Until all pods are ready and the mesh has converged on what is published now."""
        self._change("wait", timeout)

    def down(self) -> bool:
        """Remove everything the lab made, whatever died before; False when there was nothing."""
        return teardown.down(self.layout)

    # Reading

    def exists(self) -> bool:
        return self.layout.state.exists()

    def status(self) -> dict[str, Any]:
        """See report.status() for the shape."""
        return dict(self._ask("status", GRACE_S))

    def pod(self, pod: str) -> dict[str, Any]:
        """One pod's part of status(). Raises Refused when there is none."""
        pods = self.status()["pods"]
        if pod not in pods:
            raise Refused(f"there is no pod {pod!r}, only {', '.join(pods) or 'none at all'}")
        return dict(pods[pod])

    def log_file(self, target: str) -> Path:
        """NAMESPACE/POD or node/NAME (its agent's log). Raises Refused when there is none."""
        kind, _, name = target.partition("/")
        pod = self.layout.pod_log(target)
        node = self.layout.agent_log(name)
        for path in [node, pod] if kind == "node" else [pod]:
            if name and path.is_file():
                return path
        raise Refused(f"lab {self.layout.lab}: there is no log of {target!r}; expected NAMESPACE/POD or node/NAME")

    def logs(self, target: str) -> str:
        return self.log_file(target).read_text(errors="replace")

    def node_netns(self, node: str) -> Path:
        return layout.netns_path(self.layout.node_netns(node))

    def pod_netns(self, pod: str) -> Path:
        return layout.netns_path(self.layout.pod_netns(pod))

    def admin(self, node: str) -> Path:
        """The admin socket of a node's agent."""
        return self.layout.admin(node)

    @contextlib.contextmanager
    def underlay(self, node: str) -> Iterator[str]:
        """The calling thread is in the fabric's netns; gives the name of the bridge port where each frame from and to
        the node passes once. For packet sockets, which stay there when the thread comes back."""
        port = self.status()["nodes"][node]["fabric_port"]
        with linux.inside_netns(self.fabric_netns):
            yield port

    @property
    def fabric_netns(self) -> Path:
        """The netns of the underlay's bridge: outside every node, and able to reach them and their pods."""
        return layout.netns_path(self.layout.fabric_netns)

    # Running programs in pods

    def entrance(self, pod: str) -> tuple[Entrance, dict[str, str]]:
        """How to get into a pod (cgroup, netns, mount and UTS namespace), and what its programs have as environment."""
        found = self._ask("entrance", GRACE_S, pod=pod)
        where = Entrance(
            cgroup=Path(found["cgroup"]), netns=layout.netns_path(found["netns"]), sandbox_pid=found["pause_pid"]
        )
        return where, found["env"]

    def popen(self, pod: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a pod; `options` are Popen's."""
        where, env = self.entrance(pod)
        options.setdefault("env", env)
        return subprocess.Popen(command, preexec_fn=where, **options)

    def exec(
        self, pod: str, *command: str, timeout: float = 30.0, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a pod to its end, outputs captured as text; CalledProcessError if it fails and `check`."""
        where, env = self.entrance(pod)
        return subprocess.run(
            command,
            env=env,
            preexec_fn=where,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def become(self, pod: str, command: Sequence[str]) -> None:
        """Turn the calling process into `command` inside the pod (terminal, exit code and all). Returns never."""
        where, env = self.entrance(pod)
        where()
        os.chdir("/")
        terminal = {name: os.environ[name] for name in ("TERM", "LANG") if name in os.environ}
        os.execvpe(command[0], list(command), terminal | env)

    # Inside

    def _claim(self) -> None:
        """The state directory is the lab's name taken: making it is atomic."""
        self.layout.base.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            self.layout.state.mkdir(mode=0o700)
        except FileExistsError:
            raise LabError(
                f"lab {self.layout.lab} exists ({self.layout.state}): change it with `ambient lab apply`, "
                f"or remove it with `ambient lab down --name {self.layout.lab}`"
            ) from None
        if self.layout.cgroup.exists():
            self.layout.state.rmdir()
            raise Environment(
                f"cgroup {self.layout.cgroup} exists although there is no lab {self.layout.lab}: remove it"
            )
        State(self.layout.state_file, str(self.layout.cgroup)).save()

    def _start_daemon(self, mesh: bool, agent: Sequence[str] | None) -> None:
        """The daemon is given its listening socket: who connects before it is up just waits, and is told if it dies."""
        self.layout.daemon_cgroup.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener, self.layout.daemon_log.open("ab") as log:
            listener.bind(str(self.layout.socket))
            self.layout.socket.chmod(0o600)
            listener.listen()
            options = {
                "name": self.layout.lab,
                "base": str(self.layout.base),
                "listener": listener.fileno(),
                "agents": (list(agent) if agent else [sys.executable, "-m", "ambient"]) if mesh else None,
            }
            # Forked once more, so that it is nobody's child but init's, however long the caller lives.
            subprocess.run(
                ["setsid", "--fork", sys.executable, "-m", "ambient", "lab", "run", json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": _PACKAGE_PATH},
                pass_fds=[listener.fileno()],
                check=True,
            )

    def _change(self, verb: str, timeout: float, **arguments: object) -> None:
        self._ask(verb, timeout + GRACE_S, timeout=timeout, **arguments)

    def _ask(self, verb: str, patience: float, /, **arguments: object) -> Any:
        if os.geteuid() != 0:
            raise Environment("labs are root's, to look at as well: run this as root")
        if not self.exists():
            raise Gone(f"there is no lab {self.layout.lab}: make one with `ambient lab up`")
        try:
            return rpc.request(self.layout.socket, verb, patience, **arguments)
        except Gone as error:
            said = process.last_lines(self.layout.daemon_log)
            raise Gone(f"{error}\n{said}\nremove it with `ambient lab down --name {self.layout.lab}`") from error


def _documents(found: Manifests) -> list[dict[str, Any]]:
    """Paths are read, text is parsed (text has a line break, a path has none), mappings are taken as they are."""
    documents: list[Document]
    if isinstance(found, Path) or (isinstance(found, str) and "\n" not in found):
        documents = manifests.read(Path(found))
    elif isinstance(found, str):
        documents = manifests.parse(found)
    else:
        bodies = [found] if isinstance(found, Mapping) else list(found)
        documents = [Document(f"manifest {number}", dict(body)) for number, body in enumerate(bodies, 1)]
    manifests.keyed(documents)  # so that what is plainly wrong is said before anything is made
    for document in documents:
        manifests.check(document)
    return [{"where": document.where, "body": document.body} for document in documents]
