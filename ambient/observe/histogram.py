"""A histogram with fixed buckets: counts only, no clock, no lock (it lives on the agent's loop)."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from prometheus_client.core import HistogramMetricFamily

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Durations in seconds. `buckets` are upper bounds, ascending, the last one (+Inf) is understood."""

    def __init__(self, name: str, text: str, buckets: Sequence[float] = SECONDS) -> None:
        self._name, self._text, self._bounds = name, text, buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self) -> HistogramMetricFamily:
        rows, total = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            rows.append((bound, total))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], buckets=rows, sum_value=self._sum)
        return family
