"""Stands for `ambient` in a lab whose agents have a control plane: turns into an agent that reads no directory.

of_plane.py HOST:PORT CERTIFICATE_HOURS agent --node N --source DIR --ca-dir DIR ...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def arguments(target: str, hours: str, given: list[str]) -> list[str]:
    """The same words without --source and --ca-dir, and how to find the plane instead."""
    options = dict(zip(given[1::2], given[2::2], strict=True))
    del options["--source"]
    ca, token = Path(options.pop("--ca-dir")), Path(options["--run-dir"]) / "token"
    token.write_text(options["--node"])
    options |= {"--control": target, "--control-name": "ambient-control.ambient-system.svc"}
    options |= {"--control-roots": str(ca / "bundle.pem"), "--control-token": str(token)}
    options |= {"--certificate-hours": hours}
    return [given[0], *(word for option in options.items() for word in option)]


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(f"usage:{(__doc__ or '').partition(chr(10))[2].rstrip()}")
    target, hours, *rest = sys.argv[1:]
    os.execv(sys.executable, [sys.executable, "-m", "ambient", *arguments(target, hours, rest)])
