"""A lab from outside: the Python API that the CLI, the tests, the demo and the benchmarks use. Blocking; keeps no state
but the lab's name, so that any number of Lab objects may speak of the same lab."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ambient import config
from ambient.lab import admission, cgroups, cluster, layout, linux, process, rpc, teardown
from ambient.lab.errors import Environment, Gone, LabError, NotReady, Refused
from ambient.lab.process import Entrance, Sandbox
from ambient.lab.state import State
from ambient.sources import documents as parser
from ambient.sources import files
from ambient.sources.documents import Document
from ambient.sources.errors import Place
from ambient.sources.reading import hint

TIMEOUT_S = 60.0  # for pods to be ready and the mesh to converge; an up takes 5 s
GRACE_S = 15.0  # beyond which a daemon that must answer at `timeout` counts as gone
# The very package that runs here, installed or not: daemon and agents are never of another version.
_PACKAGE_PATH = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
Tell = Callable[[str], None]
Manifests = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any] | Path]


def _unheard(_: str) -> None:
    """Of whoever wants to hear nothing."""


class Lab:
    """One lab, which need not exist yet. As a context manager it is taken down at the end."""

    def __init__(self, name: str = config.LAB, *, base: Path = layout.BASE) -> None:
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
        self,
        found: Manifests,
        *,
        mesh: bool = True,
        timeout: float = TIMEOUT_S,
        keep: bool = False,
        agent: Sequence[str] | None = None,
    ) -> list[str]:
        """Make the lab of these manifests and wait until it is ready. Returns remarks, as apply() does.

        Whatever goes wrong (a manifest, a pod that does not get ready, Ctrl-C), nothing is left; with `keep`, what did
        not get ready in time stays to be looked at. `agent`: the command that stands for `ambient`, for tests of the
        lab itself.
        """
        documents = _documents(found)
        admission.refuse(admission.judge(cluster.INITIAL, documents, new_uid=str).errors)  # before anything is made
        _root("make a lab: network namespaces, cgroups and eBPF")
        self._claim()
        try:
            self._start_daemon(mesh, agent)
            return self._apply(documents, timeout)
        except BaseException as error:
            if not (keep and isinstance(error, NotReady)):
                self.down()
            raise

    def apply(self, found: Manifests, *, timeout: float = TIMEOUT_S, tell: Tell = _unheard) -> list[str]:
        """Create or change. Returns remarks: what was accepted and makes no difference, who was not waited for.

        `tell` hears what was changed, a line for each object, also when it does not get ready.
        """
        return self._apply(_documents(found), timeout, tell)

    def delete(self, found: Manifests, *, timeout: float = TIMEOUT_S, tell: Tell = _unheard) -> list[str]:
        return self._change("delete", timeout, tell=tell, documents=_packed(_documents(found)))

    def label(self, target: str, *changes: str, timeout: float = TIMEOUT_S, tell: Tell = _unheard) -> list[str]:
        """`target`: see cluster.TARGET; a change: KEY=VALUE or KEY-."""
        cluster.target(target)
        for change in changes:
            cluster.change(change)
        return self._change("label", timeout, tell=tell, target=target, changes=list(changes))

    def wait(self, *, timeout: float = TIMEOUT_S) -> None:
        """Until all pods are ready and the mesh has converged on what is published now."""
        self._change("wait", timeout)

    def down(self) -> bool:
        """Remove everything the lab made, whatever died before; False when there was nothing."""
        _root("remove a lab")
        return teardown.down(self.layout)

    # Reading

    def require(self) -> None:
        """Raises Gone when there is no such lab."""
        _root("look at a lab")
        if not self.layout.state.exists():
            there = [path.name for path in sorted(self.layout.base.glob("*")) if path.is_dir()]
            known = f"; labs that exist: {', '.join(there)}" if there else ""
            raise Gone(f"there is no lab {self.layout.lab!r}: make one with `ambient lab up`{known}")

    def status(self) -> dict[str, Any]:
        """See report.status() for the shape."""
        return dict(self._ask("status", GRACE_S))

    def pod(self, pod: str) -> dict[str, Any]:
        """One pod's part of status(). Raises Refused when there is none."""
        pods = self.status()["pods"]
        if pod not in pods:
            raise Refused(f"there is no pod {pod!r}; {hint(pod, list(pods))}")
        return dict(pods[pod])

    def log_file(self, target: str) -> Path:
        """NAMESPACE/POD or node/NAME (its agent's log). Raises Refused when there is none."""
        self.require()
        logs = {f"node/{path.parent.name}": path for path in self.layout.state.glob("nodes/*/agent.log")}
        logs |= {path.stem.replace("_", "/"): path for path in self.layout.state.glob("pods/*.log")}
        if target not in logs:
            raise Refused(f"there is no log of {target!r}; {hint(target, sorted(logs))}")
        return logs[target]

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
            cgroup=Path(found["cgroup"]), netns=layout.netns_path(found["netns"]), sandbox=Sandbox(found["pause_pid"])
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
                f"lab {self.layout.lab!r} exists ({self.layout.state}): change it with `ambient lab apply`, "
                f"or remove it with `ambient lab down --lab {self.layout.lab}`"
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
                preexec_fn=lambda: cgroups.join(self.layout.daemon_cgroup),  # in it from the start: down() finds it
                check=True,
            )

    def _apply(self, documents: list[Document], timeout: float, tell: Tell = _unheard) -> list[str]:
        return self._change("apply", timeout, tell=tell, documents=_packed(documents))

    def _change(self, verb: str, timeout: float, *, tell: Tell = _unheard, **arguments: object) -> list[str]:
        try:
            answer = self._ask(verb, timeout + GRACE_S, timeout=timeout, **arguments)
        except NotReady as error:
            for line in error.changes:
                tell(line)
            raise
        for line in answer["changes"]:
            tell(line)
        return list(answer["remarks"])

    def _ask(self, verb: str, patience: float, /, **arguments: object) -> Any:
        self.require()
        try:
            return rpc.request(self.layout.socket, verb, patience, **arguments)
        except Gone as error:
            said = process.last_lines(self.layout.daemon_log).replace("\n", "\n      | ")
            raise Gone(
                f"{error}\n    its log ends:\n      | {said or '(empty)'}\n"
                f"Remove the lab with `ambient lab down --lab {self.layout.lab}`"
            ) from error


def _root(purpose: str) -> None:
    if os.geteuid() != 0:
        raise Environment(f"it needs root to {purpose}: run this as root")


def _documents(found: Manifests) -> list[Document]:
    """Files are read, text is parsed (text has a line break, a path has none), mappings are taken as they are.

    Raises Refused for what cannot be read.
    """
    if isinstance(found, str) and "\n" in found:
        documents, broken = parser.read("text", found.encode())
    elif isinstance(found, str | Path):
        documents, broken = files.documents([Path(found)])
    else:
        several = [found] if isinstance(found, Mapping) else list(found)
        documents, broken = files.documents(item for item in several if isinstance(item, Path))
        bodies = [item for item in several if not isinstance(item, Path)]
        documents += [Document(Place("manifest", number), body) for number, body in enumerate(bodies, 1)]
    admission.refuse(broken)
    return documents


def _packed(documents: list[Document]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(document) for document in documents]
