"""Drift: PSI and KS against values computed by hand and by scipy, windows that fade, and a server that tells them."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serinus_runtime.about import About, Rule
from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.drift import bins, reference
from serinus_runtime.drift.columns import Place, flatten
from serinus_runtime.drift.monitor import ROWS, DriftMonitor
from serinus_runtime.drift.reference import Numbers, Reference, Values, describe
from serinus_runtime.drift.window import MINIMUM, Faded
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.ports import until
from unit.runtime.support import Live, infer

SIGNATURE_OF_SUM = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
RULE_OF_SUM = Rule("y", None, (("block", 0.82),), "allow")
COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=40)
FLOATS = st.lists(st.floats(width=32), min_size=1, max_size=200)


def test_psi_is_what_one_computes_by_hand() -> None:
    # (0.2 - 0.5) ln(0.2 / 0.5) + (0.8 - 0.5) ln(0.8 / 0.5); with so many rows the prior is not seen.
    assert bins.psi(np.array([2e9, 8e9]), np.array([5e9, 5e9])) == pytest.approx(0.41588830833596724, rel=1e-8)


@given(COUNTS, st.randoms())
def test_psi_is_the_symmetrised_relative_entropy(counts: list[int], random: object) -> None:
    now, then = np.array(counts, dtype=float), np.roll(np.array(counts, dtype=float), 1)
    p, q = now + bins.PRIOR, then + bins.PRIOR
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert bins.psi(now, then) == pytest.approx(expected, abs=1e-9)
    assert bins.psi(now, then) == pytest.approx(bins.psi(then, now), abs=1e-12)
    assert bins.psi(now, now) == 0.0


def test_psi_of_other_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="the same bins"):
        bins.psi(np.ones(2), np.ones(3))


def test_what_psi_is_without_drift_is_known() -> None:
    """The bias that the module states, and the minimum of rows that follows from it."""
    random = np.random.default_rng(1)
    share = np.full(11, 1 / 11)
    then = share * 1e9
    found = [bins.psi(random.multinomial(500, share).astype(float), then * 500 / 1e9) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(bins.bias(11, 500, 1e9), rel=0.05)
    assert np.quantile(found, 0.999) < 0.1


@given(FLOATS, st.integers(2, 30))
def test_every_value_falls_into_exactly_one_bin(told: list[float], count: int) -> None:
    values = np.array(told, dtype=np.float32)
    described = describe(values, count)
    assert isinstance(described, Numbers)
    assert sum(described.counts) + described.missing == len(told)
    assert described.missing == np.isnan(values).sum()
    assert len(described.counts) == len(described.edges) + 1
    assert len(described.counts) <= max(count, 3)
    assert described.edges == sorted(set(described.edges))


def test_quantile_bins_have_equal_shares_and_few_values_a_bin_each() -> None:
    described = describe(np.random.default_rng(0).normal(size=100_000), 10)
    assert isinstance(described, Numbers)
    assert len(described.counts) == 10
    assert np.allclose(described.counts, 10_000, atol=2)
    assert describe(np.array([1, 1, 2, 5])) == Numbers([1.0, 2.0], [2.0, 1.0, 1.0])
    below, at = bins.quantile_edges(np.array([3.0, 3.0]), 10)
    assert (below < 3.0, at) == (True, 3.0)
    assert bins.count_numbers(np.array([2.9, 3.0, 3.1, np.nan, np.inf, -np.inf]), np.array([below, at])).tolist() == [
        2, 1, 2, 1,
    ]  # fmt: skip


def test_the_most_frequent_strings_are_kept_and_the_rest_is_other() -> None:
    values = np.array(["a"] * 5 + ["b"] * 3 + ["c", "d"], dtype=object)
    assert describe(values, most=2) == Values(["a", "b"], [5.0, 3.0], 2.0)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_binned_ks_is_close_below_the_exact_one(seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    then, now = random.normal(size=2000), random.normal(shift, size=1000)
    edges = bins.quantile_edges(then, 20)
    counts = bins.count_numbers(then, edges)[:-1]
    found = bins.ks(bins.count_numbers(now, edges)[:-1], counts)
    exact = stats.ks_2samp(then, now).statistic
    assert found <= exact + 1e-9
    assert found >= exact - max(np.max(counts / 2000), np.max(bins.count_numbers(now, edges)[:-1] / 1000)) - 1e-9


def test_counts_fade_by_half_in_a_half_life() -> None:
    window = Faded(Numbers([0.0], [50.0, 50.0]), 10.0)
    window.add(np.full(1000, 1.0), 100.0)
    assert window.tell(100.0).rows == 1000
    assert window.tell(110.0).rows == pytest.approx(500)
    window.add(np.full(500, -1.0), 110.0)
    told = window.tell(110.0)
    assert told.rows == pytest.approx(1000)
    assert told.psi == pytest.approx(0.0, abs=1e-9)
    assert told.ks == pytest.approx(0.0, abs=1e-9)
    assert window.tell(90.0).rows == pytest.approx(1000), "a clock that steps back changes nothing"


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 50)), max_size=20))
def test_a_window_never_has_more_than_was_added(steps: list[tuple[int, float]]) -> None:
    window, now, added = Faded(Values(["a"], [10.0], 1.0), 5.0), 0.0, 0
    for count, pause in steps:
        now += pause
        added += count
        window.add(np.array(["a"] * count, dtype=object), now)
        told = window.tell(now)
        assert 0 <= told.rows <= added + 1e-9
        assert np.isfinite(told.psi)
        assert told.ks is None


SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("c", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, 2))),
    batched=True,
)
ABOUT = About({"x": ("amount", "hour")}, Rule("p", 1, (("block", 0.82), ("step_up", 0.6)), "allow"))


def known() -> Reference:
    random = np.random.default_rng(0)
    inputs = {"amount": random.normal(size=5000), "c": np.array(["a", "b"] * 2500, dtype=object)}
    return reference.make(inputs, {"score": random.uniform(size=5000)}, 5000)


def feed(monitor: DriftMonitor, rows: int, shift: float = 0.0, category: str = "a") -> None:
    random = np.random.default_rng(rows)
    for at in range(0, rows, 32):
        count = min(32, rows - at)
        x = random.normal(shift, size=(count, 2)).astype(np.float32)
        score = np.clip(random.uniform(size=count) + shift, 0, 1).astype(np.float32)
        c = np.array([[category if n % 2 else "b"] for n in range(count)], dtype=object)
        answers: list[Array] = [np.zeros(count, dtype=np.int64), np.stack([1 - score, score], axis=1)]
        monitor.offer({"x": x, "c": c}, ["label", "p"], answers)
        monitor.fold()


def told(monitor: DriftMonitor) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for key, value in sample.labels.items() if key != "le"), sample.labels.get("le", "")):
        sample.value
        for family in monitor.collect((), ())
        for sample in family.samples
    }  # fmt: skip


def test_a_monitor_tells_what_moved_and_only_that() -> None:
    clock = [1000.0]
    monitor = DriftMonitor(SIGNATURE, ABOUT, known(), now=lambda: clock[0], thread=False)
    feed(monitor, int(MINIMUM) - 1)
    assert not [key for key in told(monitor) if key[0] in ("serinus_drift_psi", "serinus_drift_ks")]
    feed(monitor, 2000)
    steady = told(monitor)
    assert steady["serinus_drift_psi", "amount", "input", ""] < 0.1
    assert steady["serinus_drift_psi", "c", "input", ""] < 0.1
    assert steady["serinus_drift_psi", "score", "output", ""] < 0.1
    assert steady["serinus_drift_ks", "score", ""] < 0.05
    assert steady["serinus_drift_rows_total", "counted", ""] == 2499
    assert ("serinus_drift_psi", "hour", "input", "") not in steady, "the reference does not know it"
    clock[0] += 10 * 3600
    feed(monitor, 4000, shift=0.8, category="new")
    moved = told(monitor)
    assert moved["serinus_drift_psi", "amount", "input", ""] > 0.25
    assert moved["serinus_drift_psi", "c", "input", ""] > 0.25
    assert moved["serinus_drift_psi", "score", "output", ""] > 0.25
    assert moved["serinus_drift_ks", "score", ""] > 0.5
    clock[0] += 100 * 3600
    assert ("serinus_drift_psi", "amount", "input", "") not in told(monitor), "what was long ago is not told as now"


def test_scores_are_counted_with_the_thresholds_as_edges() -> None:
    monitor = DriftMonitor(SIGNATURE, ABOUT, None, thread=False)
    scores = np.array([0.82, 0.83, 0.6, 0.1, np.nan], dtype=np.float64)
    monitor.offer(
        {"x": np.zeros((5, 2), np.float32)}, ["p"], [np.stack([1 - scores, scores], axis=1)]
    )  # fmt: skip
    monitor.fold()
    found = told(monitor)
    assert [found["serinus_score_bucket", edge] for edge in ("0.6", "0.8", "0.82", "1.0", "+Inf")] == [2, 2, 3, 4, 4]
    assert found["serinus_score_sum", ""] == pytest.approx(0.82 + 0.83 + 0.6 + 0.1)


def test_what_comes_faster_than_it_can_be_counted_is_let_pass_and_counted() -> None:
    monitor = DriftMonitor(SIGNATURE, ABOUT, known(), thread=False)
    x = np.zeros((1024, 2), np.float32)
    for _ in range(10):
        monitor.offer({"x": x}, [], [])
    assert monitor.passed == 10 * 1024 - ROWS
    monitor.fold()
    assert monitor.seen == ROWS
    monitor.offer({"x": x}, [], [])
    assert monitor.passed == 10 * 1024 - ROWS
    nothing = DriftMonitor(SIGNATURE, ABOUT, known(), share=0.0, thread=False)
    nothing.offer({"x": x}, [], [])
    assert (nothing.passed, nothing.seen) == (1024, 0)


def test_large_batches_are_bounded_in_bytes() -> None:
    monitor = DriftMonitor(SIGNATURE, ABOUT, known(), thread=False)
    for _ in range(3):
        monitor.offer({"x": np.zeros((1, 4 << 20), np.float32)}, [], [])
    assert monitor.passed == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON|truncated"),
        ('{"rows": 1, "version": 2}', "version 2"),
        (
            '{"rows": 1, "inputs": {"a": {"kind": "numbers", "edges": [2, 1], "counts": [1, 1, 1]}}}',
            "'a': write rising",
        ),
        ('{"rows": 1, "inputs": {"a": {"kind": "numbers", "edges": [1], "counts": [1]}}}', "one count more"),
        ('{"rows": 1, "inputs": {"a": {"kind": "numbers", "edges": [1], "counts": [0, 0]}}}', "not all 0"),
        ('{"rows": 1, "inputs": {"a": {"kind": "values", "values": ["x", "x"], "counts": [1, 1]}}}', "each value once"),
        ('{"rows": 1, "inputs": {"a": {"kind": "other"}}}', "other"),
    ],
)
def test_a_reference_that_is_no_good_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference.decode(text.encode())


@given(st.lists(st.floats(width=32), min_size=1), st.lists(st.text(max_size=5), min_size=1))
def test_a_reference_comes_back_as_it_was(numbers: list[float], texts: list[str]) -> None:
    made = reference.make({"n": np.array(numbers)}, {"t": np.array(texts, dtype=object)}, len(numbers))
    assert reference.decode(reference.encode(made)) == made


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 512"):
        reference.make({str(n): np.zeros(1) for n in range(600)}, {}, 1)


def _served(directory: Path, **settings: object) -> dict[str, float]:
    """The metrics of a server that was asked 16 times about 64 rows that are far from the reference."""
    with Live(load_model(Config(model_dir=directory)), model_dir=directory, **settings) as live:
        for _ in range(16):
            assert infer(live.port, *[[9.0, 9.0, 9.0]] * 64)[0] == 200
        until = time.monotonic() + support.WAIT
        while time.monotonic() < until:
            metrics = live.metrics()
            if metrics.get('serinus_drift_rows_total{outcome="counted"}', 1024) >= 1024:
                break
            time.sleep(0.05)
        return metrics


def test_a_server_tells_drift_when_the_model_ships_a_reference(tmp_path: Path) -> None:
    directory = support.sum_model(tmp_path / "m")
    assert not any("drift" in name or "score" in name for name in _served(directory))
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 3))
    made = reference.make({f"x[{n}]": x[:, n] for n in range(3)}, {"score": x.sum(axis=1)}, 2000)
    (directory / reference.FILE).write_bytes(reference.encode(made))
    metrics = _served(directory)
    assert metrics['serinus_drift_psi{feature="x[0]",kind="input"}'] > 0.25
    assert metrics['serinus_drift_psi{feature="score",kind="output"}'] > 0.25
    assert metrics['serinus_drift_ks{feature="score"}'] > 0.9
    assert metrics['serinus_score_bucket{le="+Inf"}'] == 1024
    assert not any("drift" in name for name in _served(directory, drift="off"))


def test_a_damaged_reference_does_not_keep_a_model_from_serving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / reference.FILE).write_text(json.dumps({"rows": "many"}))
    assert not any("drift" in name for name in _served(directory))
    assert "reference.json cannot be used" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([2, 3])), max_size=12))
def test_columns_of_many_batches_are_those_of_each(shapes: list[tuple[int, int]]) -> None:
    """Ragged widths and empty batches included; every value that a batch has is found in its column once."""
    counter = iter(range(1000))
    batches: list[dict[str, Array]] = [
        {"x": np.array([[next(counter) for _ in range(width)] for _ in range(rows)]).reshape(rows, width)}
        for rows, width in shapes
    ]
    places = [Place(f"x[{at}]", "x", at, text=False) for at in range(3)]
    found = flatten(batches, places)
    for at, place in enumerate(places):
        expected = sorted(int(row[at]) for batch in batches for row in batch["x"] if at < len(row))
        assert sorted(found.get(place.name, np.array([], dtype=int)).tolist()) == expected


def test_what_many_threads_offer_is_counted_once() -> None:
    """Each instance offers what it ran; a switch of threads at every moment loses no row."""
    monitor = DriftMonitor(SIGNATURE_OF_SUM, About({}, RULE_OF_SUM), None, thread=False, share=0.5)
    before, sizes = sys.getswitchinterval(), (1, 2, 3)
    sys.setswitchinterval(1e-6)
    over = threading.Event()

    def offer() -> None:
        for turn in range(1500):
            rows = sizes[turn % 3]
            monitor.offer({"x": np.zeros((rows, 3), np.float32)}, ["y"], [np.full((rows, 1), 0.5, np.float32)])

    def fold() -> None:
        while not over.is_set():
            monitor.fold()

    threads = [threading.Thread(target=offer) for _ in range(4)]
    folding = threading.Thread(target=fold)
    try:
        for thread in (*threads, folding):
            thread.start()
        for thread in threads:
            thread.join(support.WAIT)
    finally:
        over.set()
        folding.join(support.WAIT)
        sys.setswitchinterval(before)
    monitor.fold()
    assert monitor.seen + monitor.passed == 4 * 1500 * 2
    assert monitor.seen > 0
    (histogram,) = (family for family in monitor.collect([], []) if family.name == "serinus_score")
    told = {(s.name, s.labels.get("le")): s.value for s in histogram.samples}
    assert told["serinus_score_bucket", "+Inf"] == monitor.seen
    assert told["serinus_score_sum", None] == monitor.seen * 0.5


def test_two_instances_tell_one_distribution(tmp_path: Path) -> None:
    directory = support.sum_model(tmp_path / "m")
    x = np.random.default_rng(0).normal(size=(2000, 3))
    made = reference.make({f"x[{n}]": x[:, n] for n in range(3)}, {"score": x.sum(axis=1)}, 2000)
    (directory / reference.FILE).write_bytes(reference.encode(made))
    config = Config(model_dir=directory, instances=2)
    loaded = msgspec.structs.replace(load_model(config), costs={})
    with Live(loaded, model_dir=directory, instances=2) as live:
        assert live.server.serving is not None
        with ThreadPoolExecutor(8) as clients:
            rows = [[float(n % 5), 0.0, 0.0] for n in range(200)]
            assert all(status == 200 for status, _, _ in clients.map(lambda row: infer(live.port, row), rows))
        counted = 'serinus_drift_rows_total{outcome="counted"}'
        until(lambda: live.metrics()[counted] + live.metrics()['serinus_drift_rows_total{outcome="passed"}'] == 200)
        metrics = live.metrics()
    assert metrics[counted] == 200
    assert metrics['serinus_score_bucket{le="0.0"}'] == 40
    assert metrics['serinus_score_bucket{le="1.0"}'] == 80
    assert metrics['serinus_score_bucket{le="+Inf"}'] == 200
    assert metrics["serinus_score_sum"] == 40 * (0 + 1 + 2 + 3 + 4)
