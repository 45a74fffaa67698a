"""The plugin on the node: its program beside the others, and a configuration that runtimes choose. Files only.

The node's own configuration is copied with our plugin behind it, into a file that sorts before it, and never touched.
When the node's CNI writes its own again, runtimes go on with the copy: no pod starts outside the mesh in between. And
what is removed is ours alone. Every step is one rename: whatever is killed when, runtimes find a whole configuration.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path

import watchfiles

from ambient.agent.cni import conflist, files
from ambient.agent.cni.conflist import OWN, TYPE, Unusable
from ambient.agent.cni.namespaces import MARK

PROGRAM = Path(__file__).parent.parent.parent / "native" / TYPE
# A CNI that writes its configuration by removing it first must not take ours along; one that is gone for good must.
GONE_S = 30.0
log = logging.getLogger(__name__)


class Installer:
    """`problem` says what keeps the plugin from being used; empty when it is."""

    def __init__(
        self,
        bin_dir: Path,
        conf_dir: Path,
        run_dir: Path,
        exempt: Collection[str],
        agents: str = "",
        *,
        program: Path = PROGRAM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`agents`: how the path of kubelet's directory for an agent's pod begins, on the node."""
        self.problem = "the CNI plugin is not installed yet"
        self._bin_dir, self._conf_dir, self._run_dir = bin_dir, conf_dir, run_dir
        self._plugin = {"type": TYPE, "runDir": str(run_dir), "exempt": " ".join(sorted(exempt))}
        if agents:
            self._plugin["agents"] = agents
        self._program, self._clock = program, clock
        self._missing_since: float | None = None

    async def run(self) -> None:
        """Install, and again whenever somebody changed one of the two directories; never returns."""
        self.install()
        changes = watchfiles.awatch(
            self._bin_dir, self._conf_dir, recursive=False, rust_timeout=int(GONE_S * 1000), yield_on_timeout=True
        )
        async for _ in changes:
            self.install()

    def install(self) -> None:
        """Make it so, or say in `problem` why not."""
        before = self.problem
        try:
            self.problem = self._install()
        except OSError as error:
            self.problem = f"the CNI plugin cannot be installed: {error}"
        if self.problem not in ("", before):
            log.warning("%s", self.problem)

    def _install(self) -> str:
        if (self._run_dir / MARK).exists():
            remove(self._bin_dir, self._conf_dir)
            return "the CNI plugin was removed (ambient uninstall)"
        for folder in (self._bin_dir, self._conf_dir):
            files.sweep(folder)
        _put(self._bin_dir / TYPE, self._program.read_bytes(), 0o755)
        return self._configure()

    def _configure(self) -> str:
        problems = []
        for name in conflist.primary(path.name for path in self._conf_dir.iterdir() if path.is_file()):
            try:
                text = conflist.chained(name, (self._conf_dir / name).read_text(), self._plugin)
            except (Unusable, UnicodeDecodeError, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            self._missing_since = None
            if _put(self._conf_dir / OWN, text.encode(), 0o644):
                log.info("the CNI plugin is chained behind %s, in %s", name, self._conf_dir / OWN)
            return ""
        self._nothing_to_chain()
        found = "; ".join(problems) or f"{self._conf_dir} has no network configuration yet"
        return f"the CNI plugin is not chained: {found}"

    def _nothing_to_chain(self) -> None:
        now = self._clock()
        self._missing_since = now if self._missing_since is None else self._missing_since
        if now - self._missing_since >= GONE_S and (self._conf_dir / OWN).exists():
            log.warning("the node's network configuration is gone since %g s: removing %s", GONE_S, OWN)
            (self._conf_dir / OWN).unlink()


def uninstall(bin_dir: Path, conf_dir: Path, run_dir: Path) -> None:
    """Take the plugin off the node; an agent that still runs puts it back no more. Raises OSError.

    From the first step on the plugin lets everything pass: a runtime may use what it has read for a moment longer.
    """
    if run_dir.is_dir():
        files.write_atomically(run_dir / MARK, "")
    remove(bin_dir, conf_dir)


def remove(bin_dir: Path, conf_dir: Path) -> None:
    """The configuration first: it names the program."""
    (conf_dir / OWN).unlink(missing_ok=True)
    (bin_dir / TYPE).unlink(missing_ok=True)
    for folder in (bin_dir, conf_dir):
        if folder.is_dir():
            files.sweep(folder)


def _put(path: Path, content: bytes, mode: int) -> bool:
    """Whether the file had to be written."""
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    except FileNotFoundError:
        pass
    files.write_atomically(path, content, mode=mode)
    return True
