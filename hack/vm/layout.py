"""Where things are and what the machines are like. Pure: nothing is made here."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ambient-vm"  # kernels, which never change
BUILD = REPOSITORY / "build" / "vm"  # of this checkout
RUNS = BUILD / "runs"  # one directory per machine: what it wrote, and all it can write
GUEST = Path(__file__).parent / "guest.sh"
TESTS = Path(__file__).parent / "tests.txt"

MACHINES = 2  # of one processor each: two of one are done in half the time of one of two, which wait for each other
MEMORY = "3G"  # a lab, its pods and what their file system keeps of changes; 1 GB is in use at most
# Software emulation takes ten to thirty times as long, on a machine that others may use as well. What a test waits for
# at most is multiplied by this; what it asserts is not touched.
SLOWNESS = 15
LIMIT_S = 25 * 60  # for the selection: some 9 minutes of processor time, shared by the machines
LIMIT_ALL_S = 4 * 3600

# A clock that costs no exit to the emulator; no mitigations of hardware that is not there, no zeroing of memory.
KERNEL_OPTIONS = (
    "tsc=reliable clocksource=tsc mitigations=off no5lvl nokaslr audit=0 lsm= init_on_alloc=0 "
    "randomize_kstack_offset=off rcupdate.rcu_expedited=1"
)
# Without the features that only cost when they are emulated: more levels of page tables, guards, wide registers.
EMULATOR_OPTIONS = "-accel tcg,tb-size=1024 -machine hpet=off -cpu max,-la57,-smap,-smep,-pku"
ROOT_TAG = "ambient.root"  # this machine's root file system once more, for guest.sh to mount it with a cache
