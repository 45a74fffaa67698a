"""A puppet from the test's side: programs/puppet.py in a pod, a method for each of its commands."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from ambient.lab import Lab
from tests import slowness
from tests.mesh.manifests import PROGRAMS

REFUSED = frozenset({"reset", "refused", "closed", "EPERM", "EACCES"})  # how an app may see a refusal; never silence


@dataclass
class Answer:
    """What a command gave. `error` is empty when it worked."""

    error: str
    data: dict[str, Any] = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        raise AttributeError(f"no {name} in {self.data}")

    def __repr__(self) -> str:
        return f"Answer({self.data})"

    @property
    def who(self) -> dict[str, str]:
        """The answer to `who`. Raises AssertionError when there was none."""
        assert not self.error, self
        found: dict[str, str] = json.loads(self.data["reply"])
        return found

    @property
    def was_refused(self) -> bool:
        return self.error in REFUSED


class Puppet:
    """`do` is the command; what is not answered in time is the test's failure."""

    def __init__(self, lab: Lab, pod: str) -> None:
        self.pod = pod
        self._process = lab.popen(
            pod,
            [sys.executable, str(PROGRAMS / "puppet.py"), str(slowness.FACTOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._unread = b""
        self._answer(20.0)

    def do(self, command: str, *, patience: float = 60.0, **arguments: Any) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        return self._answer(patience)

    def ask(self, to: str, port: int = 80, text: str = "who", **options: Any) -> Answer:
        return self.do("ask", to=to, port=port, text=text, **options)

    def open(self, name: str, to: str, port: int = 80, **options: Any) -> Answer:
        return self.do("open", name=name, to=to, port=port, **options)

    def say(self, name: str, text: str, **options: Any) -> Answer:
        return self.do("say", name=name, text=text, **options)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _answer(self, patience: float) -> Answer:
        assert self._process.stdout is not None
        patience = slowness.seconds(patience)
        until = time.monotonic() + patience
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            assert left > 0, f"the puppet in {self.pod} did not answer within {patience:g} s"
            if select.select([self._process.stdout], [], [], left)[0]:
                part = self._process.stdout.read(65536)
                assert part, f"the puppet in {self.pod} died: {self._process.wait()}"
                self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        data = json.loads(line)
        return Answer(data["error"], data)
