"""What can go wrong with a cluster. One class: whoever catches it shows the text, which says what to read or do."""

from __future__ import annotations


class ClusterError(Exception):
    """The text says what was tried, what was found and which log to read or what to do."""
