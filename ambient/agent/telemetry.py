"""Records and measurements of the data plane, brought to journal and metrics. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Ending, Flow, Form


class Telemetry:
    def __init__(self, journal: Journal, metrics: Metrics, *others: Callable[[Flow, Ending], None]) -> None:
        """`others` are told of every end as well."""
        self._journal, self._metrics, self._others = journal, metrics, others
        self._forms = PerFlow(Form)

    def ended(self, flow: Flow, ending: Ending) -> None:
        self._journal.write(self._forms.of(flow).fill(flow, ending))
        self._metrics.ended(flow, ending)
        for other in self._others:
            other(flow, ending)
        if flow.reporter == "destination" and ending.setup_ns:
            self._metrics.observe_dial(ending.setup_ns / 1e9)  # here the setup is the answer and the dial of the app

    def handshake(self, seconds: float) -> None:
        self._metrics.observe_handshake(seconds)

    def dial_failed(self, reason: str) -> None:
        self._metrics.dial_failed(reason)
