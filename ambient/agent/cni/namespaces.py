"""Which namespaces have to do with the mesh, written down for the plugin, which decides by it while no agent answers.

The file, RUN_DIR/namespaces: `ambient-cni 1`, then a line `outside NAME` or `mesh NAME` each, sorted. In the mesh is a
namespace that is enrolled, or that has a pod which is so by its own label: the next one like it must not slip through.
"""

from __future__ import annotations

from pathlib import Path

from ambient.agent.cni.files import write_atomically
from ambient.model.changes import Changes, namespace_of
from ambient.model.world import World

FILE, VERSION = "namespaces", "ambient-cni 1"
MARK = "uninstalled"  # in the run directory: the mesh is being taken off this node, the plugin lets everything pass


class Namespaces:
    """As of the last World; before the first, as an earlier agent wrote it down: its plugin goes by that anyway. The
    work of a change is in proportion to it."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._enrolled: dict[str, bool] = {}  # the namespace's own label
        self._pods: dict[str, set[str]] = {}  # its enrolled pods, by workload key
        self._written = False
        self._inherited = _outside(self._path)

    def is_outside(self, name: str) -> bool:
        """Certainly none of its pods is the mesh's business."""
        if not self._written:
            return name in self._inherited
        return name in self._enrolled and not self._enrolled[name] and not self._pods.get(name)

    def revise(self, world: World, changes: Changes) -> None:
        """Follow the World, and write the file where it is another now. Raises OSError."""
        touched = {*changes.namespaces, *map(namespace_of, changes.workloads)}
        before = {name: self._line(name) for name in touched} if self._written else None
        for key in changes.workloads:
            workload = world.workloads.get(key)
            pods = self._pods.setdefault(namespace_of(key), set())
            pods.add(key) if workload is not None and workload.enrolled else pods.discard(key)
            if not pods:
                del self._pods[namespace_of(key)]
        for name in changes.namespaces:
            namespace = world.namespaces.get(name)
            if namespace is None:
                self._enrolled.pop(name, None)
            else:
                self._enrolled[name] = namespace.enrolled
        if before != {name: self._line(name) for name in touched}:
            self._written, self._inherited = True, frozenset()
            write_atomically(self._path, self.text())

    def text(self) -> str:
        return "\n".join([VERSION, *(self._line(name) for name in sorted(self._enrolled)), ""])

    def remove(self) -> None:
        """The plugin, if it is still called, then knows of no namespace."""
        self._path.unlink(missing_ok=True)

    def _line(self, name: str) -> str:
        if name not in self._enrolled:
            return ""
        return f"{'mesh' if self._enrolled[name] or self._pods.get(name) else 'outside'} {name}"


def _outside(path: Path) -> frozenset[str]:
    """What the file says is outside the mesh; nothing, where there is none or it is of another version."""
    try:
        version, *lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return frozenset()
    words = [line.split(" ") for line in lines] if version == VERSION else []
    return frozenset(name for word, name in (each for each in words if len(each) == 2) if word == "outside")
