"""Why there is no World. Beside the model, because whoever makes Worlds, and whoever takes them, says it so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class SourceError(Exception):
    """A source's state cannot become a World. `errors`: every reason, sorted; the last good World stays."""

    def __init__(self, errors: Iterable[Any], revision: str = "") -> None:
        self.errors: tuple[str, ...] = tuple(str(error) for error in sorted(set(errors)))
        self.revision = revision  # of the state that is bad
        super().__init__("\n".join(self.errors))
