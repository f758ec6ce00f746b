"""The bucket of a value is the first whose edge it does not exceed."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily

from serinus_runtime.metrics import Histogram


@given(st.lists(st.floats(-1e9, 1e9), max_size=30), st.lists(st.floats(allow_nan=False), max_size=20))
@example([0.1, 0.2], [0.1, 0.2, 0.05, 0.15, 0.3])
@example([], [1.0])
def test_every_value_is_counted_once_and_where_it_belongs(edges: list[float], values: list[float]) -> None:
    histogram = Histogram(edges)
    for value in values:
        histogram.observe(value)
    family = HistogramMetricFamily("seconds", "told")
    histogram.add_to(family, [])
    ordered = sorted(set(edges))
    counts = [sample.value for sample in family.samples if sample.name == "seconds_bucket"]
    expected = [sum(bisect_left(ordered, value) <= at for value in values) for at in range(len(ordered) + 1)]
    assert counts == expected
