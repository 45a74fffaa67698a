"""One virtual machine that runs one program in this checkout, and ends with it. Knows no tests."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hack.vm import layout
from hack.vm.errors import VmError
from hack.vm.kernel import Kernel

PROGRAMS = Path(sys.executable).parent
END_S = 10.0  # after SIGKILL


class Machine:
    """Its directory, `name` in `shared`, has `program`, and gets `output`, `status` and `console`. It can write in
    `shared` only."""

    def __init__(self, kernel: Kernel, shared: Path, name: str) -> None:
        self.directory = shared / name
        self._shared = shared
        self._kernel = kernel
        self._process: subprocess.Popen[bytes] | None = None
        self._console: threading.Thread | None = None
        self._read = 0

    def start(self, program: Sequence[str], environment: Mapping[str, str]) -> None:
        """Boot it; `program` runs as root in the checkout."""
        self.directory.mkdir(parents=True)
        (self.directory / "output").touch()
        settings = ["env", *(f"{name}={value}" for name, value in environment.items())]
        # In a file: what starts the machine's own script is on the kernel's command line, which ends after 2,047 bytes.
        (self.directory / "program").write_text("".join(f"{word}\0" for word in (*settings, *program)))
        places = [self.directory, self._shared, layout.REPOSITORY]
        script = [str(layout.GUEST), *map(str, places), layout.ROOT_TAG]
        self._process = subprocess.Popen(
            [*_vng(self._kernel, self._shared), "--", shlex.join(script)],
            env={**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},  # vng looks there for the rest of itself
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # a pipe, because the emulator opens what it finds there anew
            stderr=subprocess.STDOUT,
            bufsize=0,  # of a machine that hangs the console has the reason, while it hangs
            start_new_session=True,  # so that vng and the emulator are ended as one
        )
        self._console = threading.Thread(target=self._keep_console, args=(self._process,))
        self._console.start()

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def new_output(self) -> list[str]:
        """The lines that the program wrote since the last time; an unfinished one comes later, or at the end."""
        with (self.directory / "output").open("rb") as file:
            file.seek(self._read)
            new = file.read()
        if self.running():
            new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        return new.decode(errors="replace").splitlines()

    def status(self) -> int:
        """How the program ended. Raises VmError when the machine ended without it."""
        try:
            return int((self.directory / "status").read_text())
        except (FileNotFoundError, ValueError):
            console = self.directory / "console"
            end = "\n".join(console.read_text(errors="replace").splitlines()[-15:])
            raise VmError(f"a machine ended before its program did. The end of {console}:\n{end}") from None

    def end(self) -> None:
        """Kill it, if it runs; nothing is left of it but its directory."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_S)
        if self._console is not None:
            self._console.join(END_S)

    def _keep_console(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with (self.directory / "console").open("wb", buffering=0) as file, process.stdout:
            shutil.copyfileobj(process.stdout, file)


@contextlib.contextmanager
def ended(machines: Sequence[Machine]) -> Iterator[None]:
    """However the block is left, also by SIGTERM: no machine goes on."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        for machine in machines:
            machine.end()
        signal.signal(signal.SIGTERM, before)


def _vng(kernel: Kernel, shared: Path) -> list[str]:
    once_more = (
        f"-fsdev local,id=once_more,path=/,security_model=none,readonly=on,multidevs=remap "
        f"-device virtio-9p-pci,fsdev=once_more,mount_tag={layout.ROOT_TAG}"
    )
    return [
        str(PROGRAMS / "vng"),
        "--verbose",  # the kernel's messages: all there is to read when it does not come up
        "--disable-kvm",  # the same everywhere; and where this was written KVM runs no kernel but its own kind
        "--force-9p",
        f"--run={kernel.image}",
        "--user=root",
        f"--rwdir={shared}",
        "--cpus=1",
        f"--memory={layout.MEMORY}",
        f"--append={layout.KERNEL_OPTIONS}",
        f"--qemu-opts={layout.EMULATOR_OPTIONS} {once_more}",
    ]
