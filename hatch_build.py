"""Build hook: compiles eBPF programs, engine, CNI plugin and protocol definitions: a node needs no compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(
        self,
        version: str,  # noqa: ARG002 - hatchling's signature
        build_data: dict[str, Any],
    ) -> None:
        """Raises CalledProcessError, with make's own output above it, when a compiler or header is missing."""
        if self.target_name != "wheel":
            return
        subprocess.run(["make", "-C", self.root, "native", f"PYTHON={sys.executable}"], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
