"""What a node must have for capture, found out by looking and by harmless trying. Changes nothing, attaches nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ambient.capture import abi, cgroups, libbpf, netns, pins, routing, sockdiag, sockets
from ambient.capture.errors import CaptureError

KERNEL = (6, 1)  # the oldest that is tested (`make test-vm`); what each version brought is in docs/install.md
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}  # which includes CAP_BPF
# Programs of others that choose an endpoint in connect(): the address we would then see is no service's any more.
_FOREIGN = {
    re.compile(r"^(cil_)?sock[46]_connect"): "Cilium's socket load balancer: set socketLB.hostNamespaceOnly=true",
    re.compile(r"^cal(i|ico)_(ctlb|connect)"): (
        "Calico's connect-time load balancer: set bpfConnectTimeLoadBalancing: Disabled in FelixConfiguration"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` says what is; `fix` what to do, empty when it is well."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def findings(cgroup: Path | None = None, bpffs: Path = Path("/sys/fs/bpf")) -> list[Finding]:
    """Everything, in the order in which it should be mended. cgroup None: the root of cgroup v2."""
    return [
        kernel(os.uname().release),
        capabilities(Path("/proc/self/status").read_text()),
        _tried("libbpf", "libbpf.so.1", libbpf.version),
        cgroup2(Path("/proc/mounts").read_text()),
        bpf_file_system(bpffs),
        *other_versions(bpffs),
        _tried("eBPF programs", "load into this kernel", pins.try_loading),
        _tried("netns cookie", "SO_NETNS_COOKIE", _try_cookie),
        _tried("transparent sockets", "IP_TRANSPARENT", _try_listeners),
        _tried("policy routing", "routing rules", lambda: f"{len(routing.foreign_rules())} of others on our mark"),
        _tried("sock_diag", "CONFIG_INET_DIAG_DESTROY", _try_ending),
        unprivileged(Path("/proc/sys/kernel/unprivileged_bpf_disabled")),
        connect_hooks(cgroup),
        rules(cgroup),
    ]


def kernel(release: str) -> Finding:
    match = re.match(r"(\d+)\.(\d+)", release)
    ok = bool(match) and (int(match[1]), int(match[2])) >= KERNEL if match else False
    wanted = ".".join(map(str, KERNEL))
    return Finding("kernel", ok, f"Linux {release}", "" if ok else f"Linux {wanted} or newer is needed")


def capabilities(status: str) -> Finding:
    """`status` is the text of /proc/self/status."""
    effective = int(re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    found = f"missing {', '.join(missing)}" if missing else "all that are needed"
    return Finding("capabilities", not missing, found, "run as root, or privileged in Kubernetes" if missing else "")


def cgroup2(mounts: str) -> Finding:
    try:
        return Finding("cgroup v2", True, f"mounted at {cgroups.root(mounts)}")
    except CaptureError as error:
        return Finding("cgroup v2", False, "not mounted", str(error))


def bpf_file_system(bpffs: Path) -> Finding:
    ok = bpffs.exists() and pins.is_bpf_file_system(bpffs)
    found = f"mounted at {bpffs}" if ok else f"not mounted at {bpffs}"
    return Finding("BPF file system", ok, found, "" if ok else f"mkdir -p {bpffs}; mount -t bpf bpf {bpffs}")


def other_versions(bpffs: Path) -> Iterator[Finding]:
    for other in pins.of_other_versions(bpffs) if bpffs.exists() else ():
        yield Finding(
            "pins",
            False,
            f"{other} belongs to another version",
            f"uninstall it with that version (this: {abi.ABI_VERSION})",
        )


def unprivileged(setting: Path) -> Finding:
    """Whether anyone on the node may load eBPF programs."""
    value = setting.read_text().strip() if setting.exists() else "1"
    fix = "" if value != "0" else "sysctl -w kernel.unprivileged_bpf_disabled=2"
    return Finding("unprivileged eBPF", value != "0", f"kernel.unprivileged_bpf_disabled={value}", fix)


def connect_hooks(cgroup: Path | None) -> Finding:
    """Who else sits in connect(): two that rewrite destinations fight with service routing."""
    try:
        found = pins.hook_names(cgroup or cgroups.root())
    except (CaptureError, OSError) as error:
        return Finding("connect hooks", False, f"cannot look: {error}", "run as root")
    foreign = [(name, fix) for name in found for pattern, fix in _FOREIGN.items() if pattern.search(name)]
    text = ", ".join(sorted(set(found))) or "none"
    return Finding("connect hooks", not foreign, text, "; ".join(sorted({fix for _, fix in foreign})))


def rules(cgroup: Path | None) -> Finding:
    """Routing rules inside pods that claim our mark or table. Looks into every namespace below the cgroup."""
    clashes = []
    seen = {os.stat("/proc/self/ns/net").st_ino & 0xFFFFFFFF}
    for place in cgroups.below(cgroup) if cgroup else ():
        for pid in cgroups.processes(place):
            inode = netns.inode_of(pid)
            if inode is None or inode in seen:
                continue
            seen.add(inode)
            where = netns.open(pid)
            try:
                clashes += [f"{place.name}: {rule}" for rule in netns.run(where.fd, routing.foreign_rules)]
            finally:
                where.close()
    fix = f"move them to a mark outside {abi.MARK_MASK:#x} and a table other than {routing.TABLE}" if clashes else ""
    return Finding("routing rules", not clashes, "; ".join(clashes) or f"none in the way, {len(seen) - 1} pods", fix)


def _tried(name: str, what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, attempt())
    except (CaptureError, OSError) as error:
        return Finding(
            name, False, f"{what}: {error}", f"a kernel {KERNEL[0]}.{KERNEL[1]} with it, and root, are needed"
        )


def _try_cookie() -> str:
    where = netns.open("/proc/self/ns/net")
    where.close()
    return f"this namespace's is {where.cookie}"


def _try_ending() -> str:
    if obstacle := sockdiag.obstacle():
        raise CaptureError(obstacle)
    return "ends connections"


def _try_listeners() -> str:
    made = sockets.listeners()
    families = {each.family for each in made.values()}
    for each in made.values():
        each.close()
    return "IPv4 and IPv6" if socket.AF_INET6 in families else "IPv4 only"
