"""What can go wrong with the virtual machines. One class: whoever catches it shows the text."""

from __future__ import annotations


class VmError(Exception):
    """The text says what was tried, what was found and which log to read or what to do."""
