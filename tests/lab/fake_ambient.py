"""Stands for `ambient agent` in tests of the lab itself: answers status and wait as the real one does, carries nothing.

Has a child, as the real one has its engine: in the cgroup below its own, in another session.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
from pathlib import Path

from ambient.sources import directory

options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
assert sys.argv[1] == "agent"
source, run_dir = Path(options["--source"]), Path(options["--run-dir"])
hierarchy = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
engine_cgroup = Path(options["--cgroup"]) / "agent/engine"
assert hierarchy.endswith(f"/{options['--node']}/agent"), hierarchy
assert os.path.ismount(options["--bpffs"])
engine_cgroup.mkdir(exist_ok=True)
engine = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
(engine_cgroup / "cgroup.procs").write_text(str(engine.pid))


class Admin(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        revision = directory.revision(source)
        answer: dict[str, object] = {
            "ok": {
                "node": options["--node"],
                "revision": revision,
                "ready": True,
                "blockers": ["certificate spiffe://nobody"],
                "errors": [],
                "agent_pid": os.getpid(),
                "engine_pid": engine.pid,
                "pods": {"shop/client": {"enrolled": True, "captured": True, "reason": ""}},
            }
        }
        if request["verb"] == "wait" and (
            (source / "namespace_stuck.yaml").exists() or request["revision"] != revision
        ):
            answer = {"error": f"not at {request['revision']}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


path = run_dir / "admin.sock"
path.unlink(missing_ok=True)
print("fake agent listens", flush=True)
socketserver.ThreadingUnixStreamServer(str(path), Admin).serve_forever()
