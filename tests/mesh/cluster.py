"""A lab with a mesh in it, and what a test may see and do: records, processes, the agents' answers, the app's log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ambient.lab import Lab, layout, linux
from ambient.lab.process import Entrance
from ambient.observe import client as admin
from tests import slowness
from tests.mesh.manifests import Manifest
from tests.mesh.puppets import Puppet
from tests.mesh.waiting import eventually, gone

Record = dict[str, Any]
NODES = ("node1", "node2")
SIOCGIFHWADDR = 0x8927


class Mesh(Lab):
    """A lab whose fixed facts (addresses, ways into pods) are asked once: usable while its daemon is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._entrances: dict[str, tuple[Entrance, dict[str, str]]] = {}
        self._puppets: dict[str, Puppet] = {}
        self._told: dict[str, int] = {}  # how far each log was read when the test began
        self.facts: dict[str, Any] = {}

    def begin(self, manifests: Iterable[Manifest], **options: Any) -> None:
        self.up(list(manifests), **options)
        self.learn()

    def learn(self) -> None:
        """Ask again what is fixed, after pods came or went."""
        self.facts = self.status()
        self._entrances.clear()

    def down(self) -> bool:
        for puppet in self._puppets.values():
            puppet.stop()
        self._puppets.clear()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.go_on()
        return super().down()

    def entrance(self, pod: str) -> tuple[Entrance, dict[str, str]]:
        if pod not in self._entrances:
            self._entrances[pod] = super().entrance(pod)
        return self._entrances[pod]

    @contextlib.contextmanager
    def underlay(self, node: str) -> Iterator[str]:
        with linux.inside_netns(self.fabric_netns):
            yield str(self.facts["nodes"][node]["fabric_port"])

    def puppet(self, pod: str) -> Puppet:
        """The client in this pod: one for all tests of a module."""
        if pod not in self._puppets:
            self._puppets[pod] = Puppet(self, pod)
        return self._puppets[pod]

    def dismiss(self, pod: str) -> None:
        """End the client in a pod that is to go."""
        self._puppets.pop(pod).stop()

    def rulesets(self) -> dict[str, str]:
        """nftables (and so iptables) of every netns of the lab: the lab's own service rules, and nobody else's."""
        found = {}
        for space in [row["netns"] for kind in ("nodes", "pods") for row in self.facts[kind].values()]:
            command = ["ip", "netns", "exec", space, "nft", "-s", "list", "ruleset"]
            found[space] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return found

    def ip(self, pod: str, version: int = 4) -> str:
        return str(self.facts["pods"][pod]["ips"][version == 6])

    def node_ip(self, node: str, version: int = 4) -> str:
        return str(self.facts["nodes"][node]["underlay"][version == 6])

    def vip(self, service: str, version: int = 4) -> str:
        return str(self.facts["services"][service]["vips"][version == 6])

    # Changing

    def _change(self, verb: str, timeout: float, **arguments: object) -> list[str]:
        """Every verb that waits: no longer than this machine needs."""
        return super()._change(verb, slowness.seconds(timeout), **arguments)

    @contextlib.contextmanager
    def having(self, *manifests: Manifest) -> Iterator[None]:
        """These are applied for the `with` block; the mesh has converged on them."""
        self.apply(list(manifests))
        try:
            yield
        finally:
            self.delete(list(manifests))

    def publish(self, manifests: list[Manifest]) -> None:
        """Like apply(), but returns when the manifests are written: convergence is awaited by a thread of its own."""
        threading.Thread(target=self.apply, args=(manifests,), daemon=True).start()

    # What agents and apps tell

    def quiet(self, *, within: float = 3.0) -> None:
        """Wait until no engine carries anything; what a failed test left open is not waited for longer."""
        with contextlib.suppress(AssertionError):
            eventually("nothing is carried", lambda: not any(self.connections(node) for node in NODES), within=within)

    def connections(self, node: str) -> int:
        """How many the node's engine carries, probes included."""
        return len(self.agent(node, "connections"))

    def mark(self) -> None:
        """From here on records() and events() tell only what is new."""
        logs = [self.layout.agent_log(node) for node in NODES]
        logs += (self.layout.state / "pods").glob("*.log")
        self._told = {str(log): log.stat().st_size for log in logs}

    def records(self, *reporters: str) -> list[Record]:
        """The access records since mark(), of both nodes; those of kubelet's probes are left out."""
        found = [row for node in NODES for row in self.all_records(node)]
        found = [row for row in found if not row["rule"].startswith("node-local")]
        return [row for row in found if not reporters or row["reporter"] in reporters]

    def all_records(self, node: str) -> list[Record]:
        """One node's records since mark(), kubelet's probes included."""
        return [row for row in self._lines(self.layout.agent_log(node)) if row.get("type") == "connection"]

    def events(self, pod: str, kind: str = "") -> list[Record]:
        """What the app in a pod has seen since mark()."""
        found = [row for row in self._lines(self.layout.pod_log(pod)) if "event" in row]
        return [row for row in found if not kind or row["event"] == kind]

    def record(self, reporter: str, *, within: float = 5.0, **wanted: object) -> Record:
        """The one record of this reporter that has these values; a callable value is asked. Raises AssertionError."""

        def fits(row: Record) -> bool:
            return all(value(row[key]) if callable(value) else row[key] == value for key, value in wanted.items())

        found = lambda: [row for row in self.records(reporter) if fits(row)]  # noqa: E731 - asked until the deadline
        try:
            rows = eventually("a record", found, within=within)
        except AssertionError:
            shown = "\n".join(json.dumps(row) for row in self.records()) or "none at all"
            raise AssertionError(f"no record of {reporter} with {wanted}; there are:\n{shown}") from None
        assert len(rows) == 1, rows
        return rows[0]

    def await_records(self, count: int) -> int:
        """Both sides write so many, of connections that are told apart by their trace. Of a direct one there is one
        record in all; how many of the connections were that."""
        sides = ("source", "destination")

        def traces() -> list[list[str]]:
            return [[row["trace_id"] for row in self.records(side) if row["path"] != "direct"] for side in sides]

        def past_us() -> list[str]:
            return [row["connection"] for row in self.records() if row["path"] == "direct"]

        with contextlib.suppress(AssertionError):
            eventually("the records", lambda: all(len(each) + len(past_us()) >= count for each in traces()))
        direct = past_us()
        assert len(set(direct)) == len(direct)
        for side, found, other in zip(sides, traces(), reversed(traces()), strict=True):
            twice = sorted(trace for trace in set(found) if found.count(trace) > 1)
            missing = sorted(set(other) - set(found))
            told = f"{side}: {len(found)} and {len(direct)} direct of {count} records, twice {twice}, missing {missing}"
            assert (len(found) + len(direct), twice, missing) == (count, [], []), told
        return len(direct)

    def _lines(self, log: Path) -> list[Record]:
        with log.open("rb") as file:
            file.seek(self._told.get(str(log), 0))
            text = file.read()
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines() if line.startswith(b"{")]

    def new_log(self, node: str) -> str:
        """What the agent logged since mark(), records included."""
        with self.layout.agent_log(node).open() as file:
            file.seek(self._told.get(str(self.layout.agent_log(node)), 0))
            return file.read()

    def agent(self, node: str, verb: str = "status", **arguments: object) -> Any:
        return admin.call(self.admin(node), verb, deadline_s=slowness.seconds(5.0), **arguments)

    def metrics(self, node: str) -> dict[str, float]:
        """Every sample of the node's /metrics page, as Prometheus sees it: from outside the node."""
        with self.from_fabric(self.node_ip(node), 15020) as sock, sock.makefile("rwb") as file:
            file.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            file.flush()
            text = file.read().decode().partition("\r\n\r\n")[2]
        rows = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    # Processes

    def agent_pid(self, node: str) -> int:
        """The agent that answers on the node's admin socket; 0 while none does."""
        try:
            return int(self.agent(node)["agent_pid"])
        except (admin.Unreachable, admin.Refused):
            return 0

    def engine_pid(self, node: str) -> int:
        try:
            return int(self.agent(node)["engine_pid"])
        except (admin.Unreachable, admin.Refused):
            return 0

    def engines(self, node: str) -> list[int]:
        """The node's engine processes, whether there is an agent to ask or not."""
        return [int(pid) for pid in (self.layout.agent_cgroup(node) / "engine/cgroup.procs").read_text().split()]

    def ready(self, node: str) -> bool:
        try:
            return bool(self.agent(node)["ready"])
        except (admin.Unreachable, admin.Refused):
            return False

    def kill_agent(self, node: str) -> int:
        """SIGKILL; the lab starts the next. Returns the dead one's pid."""
        pid = self.agent_pid(node)
        os.kill(pid, signal.SIGKILL)
        gone(pid)
        return pid

    def await_agent(self, node: str, other_than: int, *, within: float = 15.0) -> int:
        """The pid of the ready agent that is not `other_than`."""
        return eventually(
            f"a new agent on {node}",
            lambda: self.agent_pid(node) if self.ready(node) and self.agent_pid(node) != other_than else 0,
            within=within,
        )

    def kill_engine(self, node: str) -> int:
        pid = self.engine_pid(node)
        os.kill(pid, signal.SIGKILL)
        gone(pid)
        return pid

    def pause(self) -> None:
        """Stop the lab's daemon: nobody starts an agent that was killed, nobody probes."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in (self.layout.daemon_cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), number)

    @contextlib.contextmanager
    def without_agent(self, *nodes: str) -> Iterator[None]:
        """For the `with` block these nodes' agents are dead; afterwards all is as it should be."""
        self.pause()
        try:
            for node in nodes:
                self.kill_agent(node)
            yield
        finally:
            self.go_on()
            self.settle()

    def settle(self) -> None:
        """Wait until both agents are ready again, and pods too."""
        for node in NODES:
            eventually(f"{node} ready", lambda node=node: self.ready(node), within=20)  # type: ignore[misc]
        self.wait(timeout=20)

    # Sockets of the fabric: outside of every node

    def from_fabric(self, to: str, port: int, *, source: str = "", timeout: float = 3.0) -> socket.socket:
        """A connection from outside the cluster's nodes; raises OSError."""
        with linux.inside_netns(self.fabric_netns):
            return socket.create_connection((to, port), slowness.seconds(timeout), (source, 0) if source else None)

    def knock(self, to: str, port: int, say: bytes = b"", *, source: str = "") -> bytes:
        """What is answered to the fabric before the connection is closed; nothing, where it is refused or reset."""
        try:
            with self.from_fabric(to, port, source=source) as sock:
                sock.sendall(say)
                sock.shutdown(socket.SHUT_WR)
                return all_from(sock)
        except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
            return b""

    def mac(self, node: str) -> str:
        """Of the node's interface on the fabric."""
        return str(self.inside(node, lambda: _mac("eth0")))

    def pod_mac(self, pod: str) -> str:
        return str(self.inside(pod, lambda: _mac("eth0")))

    @contextlib.contextmanager
    def listening(self, netns: str, address: tuple[str, int]) -> Iterator[Callable[[], int]]:
        """Somebody listens there; gives how many came so far."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = self.inside(netns, lambda: socket.create_server(address, family=family))
        sock.setblocking(False)
        came: list[socket.socket] = []

        def count() -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    came.append(sock.accept()[0])
            return len(came)

        try:
            yield count
        finally:
            for each in [sock, *came]:
                each.close()

    def inside(self, netns: str | Path, work: Callable[[], Any]) -> Any:
        """Do something blocking in a netns: "fabric", a node's or pod's name, or a path."""
        path = {"fabric": self.fabric_netns}.get(str(netns)) or (
            netns if isinstance(netns, Path) else self.pod_netns(netns) if "/" in netns else self.node_netns(netns)
        )
        with linux.inside_netns(path):
            return work()


def _mac(interface: str) -> str:
    """By ioctl, because /sys shows the netns it was mounted in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, SIOCGIFHWADDR, struct.pack("256s", interface.encode()))
    return answer[18:24].hex(":")


def all_from(sock: socket.socket) -> bytes:
    """What the other end says before it closes."""
    said = b""
    while part := sock.recv(65536):
        said += part
    return said


def rss(pid: int) -> int:
    """Bytes of memory a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory: it is dead")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def traces(name: str) -> list[str]:
    """Everything of a lab that is still there."""
    lab = Lab(name).layout
    found = [str(path) for path in layout.NETNS_DIR.glob(f"amb-{name}-*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/lab/{name}/" in line]
    found += [str(path) for path in (lab.cgroup, lab.state) if path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/ambient/lab/{name}/".encode() in (process / "cmdline").read_bytes():
                found.append(f"{process}: {(process / 'cmdline').read_text()}")
    return found
