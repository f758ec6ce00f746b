"""Bad versions are bad for the share of requests that they say, and good on the zeros of warm-up."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from fraud.data import generate
from fraud.train import Built
from support.faults import FAULTS, HUGE, built


@pytest.fixture(scope="module")
def versions() -> dict[str, Built]:
    return built()


def session(built: Built) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(built.directory / "model.onnx"), options, providers=["CPUExecutionProvider"])


def rows(count: int) -> list[dict[str, np.ndarray]]:
    data = generate(count, seed=9)
    return [
        {"features": data.features[i : i + 1], "merchant_category": data.merchant_category[i : i + 1]}
        for i in range(count)
    ]


ZEROS = {"features": np.zeros((4, 12), np.float32), "merchant_category": np.full((4, 1), "", object)}


@pytest.mark.parametrize("name", [name for name in FAULTS if name.startswith("errors")])
def test_a_share_of_requests_fails(versions: dict[str, Built], name: str) -> None:
    model, failed = session(versions[name]), 0
    model.run(None, ZEROS)
    sample = rows(2000)
    for one in sample:
        try:
            model.run(None, one)
        except InvalidArgument:
            failed += 1
    expected = FAULTS[name].rows * len(sample)
    assert abs(failed - expected) <= 5 * max(1.0, expected * (1 - FAULTS[name].rows)) ** 0.5


def test_scores_are_turned_around_for_some_and_the_same_for_others(versions: dict[str, Built]) -> None:
    good, other = session(versions["v2"]), session(versions["disagreeing"])
    data = generate(2000, seed=9)
    inputs = {"features": data.features, "merchant_category": data.merchant_category}
    (_, one), (_, two) = good.run(None, inputs), other.run(None, inputs)
    turned = np.abs(one + two - 1).max(axis=1) < 1e-6
    same = np.abs(one - two).max(axis=1) < 1e-6
    assert (turned | same).all()
    assert 0.08 < (turned & ~same).mean() < 0.2


def test_a_slow_row_works_longer_than_a_hundred_others(versions: dict[str, Built]) -> None:
    """Processor time, not wall clock: another process on the machine does not count."""
    model, spent = session(versions["slow"]), []
    model.run(None, ZEROS)
    for one in rows(100):
        began = time.process_time()
        model.run(None, one)
        spent.append(time.process_time() - began)
    assert max(spent) > sum(sorted(spent)[:50])


def test_a_fatal_row_asks_for_more_than_a_container_has() -> None:
    assert HUGE * 4 > 1 << 30
