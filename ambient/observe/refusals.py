"""What a pod is refused on its way out, again and again: which refusals have a record, and which only a number. No I/O.

A loop around connect() is refused by the kernel tens of thousands of times a second, which would be as many records.
The first ones of a window are recorded each; of the others the last, at the window's end, with how many they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ambient.observe.records import Ending, Flow

WINDOW_S = 10.0
ALIKE = 10  # of one pod, destination and rule in a window: an application's own retries are seen one by one
MOST = 100  # of one pod in a window, as it may scan
Pod = tuple[str, str]  # namespace and name


@dataclass(slots=True)
class _Window:
    recorded: int = 0
    alike: Counter[tuple[str, str]] = field(default_factory=Counter)  # by destination and rule
    last: tuple[Flow, Ending] | None = None  # beyond these: its record is the window's last
    suppressed: int = 0  # before that one, and without a record


class Refusals:
    def __init__(
        self, write: Callable[[Flow, Ending], None], call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`call_later(seconds, what)`: the event loop's."""
        self.suppressed = 0  # refusals without a record of their own, since the start
        self._write, self._call_later = write, call_later
        self._windows: dict[Pod, _Window] = {}

    def tell(self, flow: Flow, ending: Ending) -> None:
        """Of a connection for which concerns() is true: write it now, or count it."""
        pod = flow.source.namespace, flow.source.workload
        window = self._windows.get(pod)
        if window is None:
            window = self._windows[pod] = _Window()
            self._call_later(WINDOW_S, lambda: self._close(pod))
        kind = ending.destination, flow.rule
        if window.recorded < MOST and window.alike[kind] < ALIKE:
            window.recorded += 1
            window.alike[kind] += 1
            self._write(flow, ending)
            return
        if window.last is not None:
            window.suppressed += 1
            self.suppressed += 1
        window.last = flow, ending

    def close(self) -> None:
        """Write what is only counted yet: nobody comes back for it."""
        for pod in list(self._windows):
            self._close(pod)

    def _close(self, pod: Pod) -> None:
        window = self._windows.pop(pod, None)
        if window is not None and window.last is not None:
            flow, ending = window.last
            self._write(flow, ending._replace(suppressed=window.suppressed))


def concerns(flow: Flow, ending: Ending) -> bool:
    """A pod of this node was refused what it dialled, before there was a connection."""
    return flow.verdict == "deny" and flow.reporter == "source" and ending.reason == "refused"
