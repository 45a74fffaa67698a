"""`ambient` as its next version may be: it speaks one version more than ours, and all it says has more fields.

What an engine of ours makes of these fields would be seen at once: their bits are all set.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ambient.dataplane import abi

ADDED = ctypes.c_uint64 * 3
KEPT = {"Head", "Addr", "Choice", "ClientKey", "ClientValue", "Struct"}  # these cannot grow


def grown(struct: type[abi.Struct]) -> type[abi.Struct]:
    def begin(self: Any, **values: Any) -> None:
        super(later, self).__init__(**values)
        self.added = ADDED(*[2**64 - 1] * 3)

    later = type(struct)(struct.__name__, (struct,), {"_fields_": [("added", ADDED)], "__init__": begin})
    return later


def grow() -> None:
    """Before anybody else has seen the structs."""
    abi.ABI += 1
    for name, struct in list(vars(abi).items()):
        if isinstance(struct, type) and issubclass(struct, abi.Struct) and name not in KEPT:
            later = grown(struct)
            setattr(abi, name, later)
            abi.BODIES.update({kind: later for kind, body in abi.BODIES.items() if body is struct})


if __name__ == "__main__":
    grow()
    from ambient.cli import main

    main(prog_name="ambient")
