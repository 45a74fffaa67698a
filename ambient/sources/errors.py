"""What can be wrong with a source. Texts say where, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BadManifest(Exception):
    """One field, document or file that is not what it must be."""

    file: str
    document: int  # counted from 1; 0: the file as a whole
    subject: str  # "Pod shop/web", as far as it is known
    path: str  # spec.rules[0].from; empty: the document as a whole
    expected: str
    found: str

    def __str__(self) -> str:
        document = f"document {self.document}" if self.document else ""
        subject = f"({self.subject})" if self.subject else ""
        place = " ".join(part for part in (document, subject) if part)
        where = ": ".join(part for part in (self.file, place, self.path) if part)
        return f"{where}: expected {self.expected}, found {self.found}"


class SourceError(Exception):
    """A source's state cannot become a World. `errors`: every reason, sorted; the last good World stays."""

    def __init__(self, errors: Iterable[object], revision: str = "") -> None:
        self.errors: tuple[str, ...] = tuple(sorted({str(error) for error in errors}))
        self.revision = revision  # of the state that is bad
        super().__init__("\n".join(self.errors))
