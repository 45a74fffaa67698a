"""What can be said of manifests: errors and notes, each with its place. Pure; nothing is judged here."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.errors import SourceError

__all__ = ["BadManifest", "SourceError"]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a manifest is written."""

    file: str
    document: int = 0  # counted from 1; 0: the file as a whole
    inside: str = ""  # items[2]: in a List

    def __str__(self) -> str:
        return f"{self.file} document {self.document}" if self.document else self.file

    def wrong(self, object: str, field: str, expected: str, found: str) -> BadManifest:
        return BadManifest(self.file, self.document, object, self.within(field), expected, found)

    def note(self, object: str, field: str, why: str) -> Note:
        return Note(self.file, self.document, object, self.within(field), why)

    def within(self, field: str) -> str:
        """The field's path in the document."""
        return f"{self.inside}.{field}" if self.inside and field else self.inside or field


@dataclass(frozen=True, slots=True, order=True)
class BadManifest(Exception):
    """One field, document or file that is not what it must be."""

    file: str
    document: int
    object: str  # "Pod shop/web", as far as it is known
    field: str  # spec.rules[0].from; empty: the document as a whole
    expected: str
    found: str

    def __str__(self) -> str:
        where = _where(self.file, self.document, self.object, self.field)
        return f"{where}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """What is accepted and makes no difference, and why."""

    file: str
    document: int
    object: str
    field: str
    why: str

    def __str__(self) -> str:
        return f"{_where(self.file, self.document, self.object, self.field)}: {self.why}"


def _where(file: str, document: int, object: str, field: str) -> str:
    subject = f" ({object})" if object else ""
    place = f"{file}: document {document}{subject}" if document else file + subject
    return f"{place}: {field}" if field else place
