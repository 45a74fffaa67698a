"""state.json: what this lab made outside its own directory, written before it is made. `down` believes nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ambient.lab.errors import Environment
from ambient.lab.layout import netns_path


@dataclass
class State:
    """The write-ahead list of one lab."""

    path: Path
    cgroup: str
    netns: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> State:
        found = json.loads(path.read_text())
        return cls(path, found["cgroup"], found["netns"])

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"cgroup": self.cgroup, "netns": self.netns}, indent=1))
        new.rename(self.path)

    def owns_netns(self, name: str) -> None:
        """About to be made. Refuses a name that somebody else has: `down` would remove it."""
        if netns_path(name).exists():
            raise Environment(f"network namespace {name} exists and is not this lab's: ip netns del {name}")
        self.netns.append(name)
        self.save()

    def lost_netns(self, name: str) -> None:
        """Was removed."""
        self.netns.remove(name)
        self.save()
