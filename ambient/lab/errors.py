"""What can go wrong with a lab, by blame. Only names and texts here."""

from __future__ import annotations

from collections.abc import Sequence


class LabError(Exception):
    """Something the user of a lab should read. The text says what was tried, what was found and what to do."""

    kind = "error"


class Refused(LabError):
    """The request's fault: nothing was changed."""

    kind = "refused"


class Misused(Refused, ValueError):
    """The request cannot be understood: a name or an argument is not of the form it must have."""

    kind = "misused"


class NotReady(LabError):
    """The change was made, but the pods or the mesh did not get ready in time."""

    kind = "not-ready"

    def __init__(self, text: str, changes: Sequence[str] = ()) -> None:
        """`changes`: what was made all the same, a line each."""
        super().__init__(text)
        self.changes = list(changes)


class Gone(LabError):
    """There is no such lab, or its daemon does not answer."""

    kind = "gone"


class Environment(LabError):
    """The machine refused what a lab needs: a missing program, a missing privilege, a name taken by somebody else."""

    kind = "environment"


def from_wire(kind: str, text: str, changes: Sequence[str]) -> LabError:
    """The error a daemon sent, as an exception again."""
    if kind == NotReady.kind:
        return NotReady(text, changes)
    for cls in (Refused, Misused, Gone, Environment):
        if cls.kind == kind:
            return cls(text)
    return LabError(text)
