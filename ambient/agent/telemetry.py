"""Records and measurements of the data plane, brought to journal and metrics. Decides nothing."""

from __future__ import annotations

from ambient.observe.journal import Journal
from ambient.observe.metrics import Metrics
from ambient.observe.perflow import PerFlow
from ambient.observe.records import Ending, Flow, Form


class Telemetry:
    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal, self._metrics = journal, metrics
        self._forms = PerFlow(Form)

    def ended(self, flow: Flow, ending: Ending) -> None:
        self._journal.write(self._forms.of(flow).fill(ending))
        self._metrics.ended(flow, ending)
        if flow.reporter == "destination" and ending.setup_ns:
            self._metrics.observe_dial(ending.setup_ns / 1e9)  # here the setup is the answer and the dial of the app

    def handshake(self, seconds: float) -> None:
        self._metrics.observe_handshake(seconds)

    def dial_failed(self, reason: str) -> None:
        self._metrics.dial_failed(reason)
