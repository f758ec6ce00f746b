"""Counters and gauges for prometheus_client, with the labels that all metrics of a process have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Families:
    """Makes families whose every sample has the labels `names` with `values`."""

    def __init__(self, names: Sequence[str], values: Sequence[str]) -> None:
        self._names = names
        self._values = values

    def counter(self, name: str, text: str, label: str, counts: Iterable[tuple[str, float]]) -> Metric:
        """A counter by one more label; without one (`""`), the only count's key is not looked at."""
        family = CounterMetricFamily(name, text, labels=[*self._names, label] if label else self._names)
        for key, count in counts:
            family.add_metric([*self._values, key] if label else self._values, count)
        return family

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """A gauge."""
        family = GaugeMetricFamily(name, text, labels=self._names)
        family.add_metric(self._values, value)
        return family
