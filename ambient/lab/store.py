"""The cluster as files: one YAML document per object, all that the agents ever see of it. Writes only what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ambient.lab.cluster import Objects
from ambient.lab.manifests import KINDS, Key

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Store:
    """The files below `cluster`; `staging` is a directory beside it on the same file system."""

    def __init__(self, cluster: Path, staging: Path) -> None:
        self._cluster = cluster
        self._staging = staging
        self._written: dict[Key, str] = {}

    def write(self, objects: Objects) -> bool:
        """Make the files say `objects`; True when one changed.

        New texts are complete before the first is renamed into place, what guards is renamed before what it guards, and
        what is guarded disappears first: a reader in between finds a cluster that was meant, never half a file.
        """
        texts = {key: dump(body) for key, body in objects.items()}
        changed = sorted((key for key in texts if self._written.get(key) != texts[key]), key=_publish_order)
        for key in changed:
            (self._staging / key.file).write_text(texts[key])
        for key in changed:
            (self._staging / key.file).rename(self._cluster / key.file)
        gone = sorted(self._written.keys() - texts.keys(), key=_publish_order, reverse=True)
        for key in gone:
            (self._cluster / key.file).unlink()
        self._written = texts
        return bool(changed or gone)


def dump(body: object) -> str:
    return str(yaml.dump(body, Dumper=_Dumper, sort_keys=False))


def _publish_order(key: Key) -> tuple[int, Key]:
    return KINDS.index(key.kind), key
