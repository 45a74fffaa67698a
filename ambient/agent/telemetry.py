"""Records and measurements of the data plane, brought to journal and metrics. Decides nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Ending, Flow, Form


class Other(Protocol):
    def __call__(self, flow: Flow, /, *endings: Ending) -> None: ...


class Telemetry:
    def __init__(self, journal: Journal, metrics: Metrics, *others: Other) -> None:
        """`others` are told of every end as well, of those that ended alike together."""
        self._journal, self._metrics, self._others = journal, metrics, others
        self._forms = PerFlow(Form)
        self._mirrored = PerFlow(lambda flow: replace(flow, reporter="source"))

    def ended(self, flow: Flow, ending: Ending) -> None:
        self._tell(flow, (ending,))
        if flow.reporter == "destination" and ending.setup_ns:
            self._metrics.observe_dial(ending.setup_ns / 1e9)  # here the setup is the answer and the dial of the app

    def ended_directly(self, flow: Flow, *endings: Ending) -> None:
        """Of connections past the engine, with one reason and error. Each has one record; of one between two pods of
        ours, both sides count it."""
        self._tell(flow, endings)
        for mirrored in self.both(flow)[1:]:
            self._metrics.mirrored(mirrored, *endings)
            for other in self._others:
                other(mirrored, *endings)

    def _tell(self, flow: Flow, endings: tuple[Ending, ...]) -> None:
        form = self._forms.of(flow)
        for ending in endings:
            self._journal.write(form.fill(flow, ending))
        self._metrics.ended(flow, *endings)
        for other in self._others:
            other(flow, *endings)

    def both(self, flow: Flow) -> tuple[Flow, ...]:
        """As its reporter tells it, and of a direct one as the other side would."""
        return (flow, self._mirrored.of(flow)) if flow.path == "direct" else (flow,)

    def flush(self) -> None:
        """What was written has left the agent when this returns, as far as it can."""
        self._journal.flush()

    def handshake(self, seconds: float) -> None:
        self._metrics.observe_handshake(seconds)

    def dial_failed(self, reason: str) -> None:
        self._metrics.dial_failed(reason)
