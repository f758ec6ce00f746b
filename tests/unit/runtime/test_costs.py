"""What a batch costs, measured on a machine that others use as well: on a clock and a core of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.costs import INLINE_SECONDS, Costs, Meter, thread_usage
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Engine, Signature, TensorSpec
from serinus_runtime.warmup import measure

DEAR, CHEAP = 4 * INLINE_SECONDS, INLINE_SECONDS / 10


class Core:
    """A core with a clock, which the thread may lose while it works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cpu = 0.0
        self.switches = 0
        self.asked = 0

    def usage(self) -> tuple[int, float]:
        self.asked += 1
        return self.switches, self.cpu

    def work(self, seconds: float, away: float = 0.0) -> None:
        """Works for `seconds`, and is away from its core for `away`."""
        self.now += seconds + away
        self.cpu += seconds
        self.switches += away > 0

    def inline(self, costs: Costs, rows: int, seconds: float, away: float = 0.0) -> None:
        costs.begins_inline(rows)
        began = self.now
        self.work(seconds, away)
        costs.ran_inline(rows, self.now - began)


def _costs(core: Core) -> Costs:
    return Costs({1: CHEAP, 2: CHEAP, 4: CHEAP}, usage=core.usage)


def test_a_crowded_machine_does_not_make_a_cheap_model_dear() -> None:
    core = Core()
    costs = _costs(core)
    for _ in range(1000):
        core.inline(costs, 4, CHEAP, away=DEAR)
    assert costs.inline(4)


def test_a_dear_model_is_found_out_on_a_quiet_and_on_a_crowded_machine() -> None:
    for away in (0.0, 3 * DEAR):
        core = Core()
        costs = _costs(core)
        for _ in range(100):
            core.inline(costs, 4, DEAR, away)
        assert not costs.inline(4), away
        assert costs.inline(2), away


def test_threads_of_the_engine_that_the_loop_waits_for_count() -> None:
    core = Core()
    costs = _costs(core)
    for _ in range(100):
        costs.begins_inline(1)
        core.now += DEAR
        costs.ran_inline(1, DEAR)
    assert not costs.inline(1)


def test_dear_batches_among_cheap_ones_of_their_size_are_not_forgotten() -> None:
    core = Core()
    costs = _costs(core)
    for _ in range(300):
        core.inline(costs, 4, 20 * DEAR)
        core.inline(costs, 4, 9 * INLINE_SECONDS / 10)
        core.inline(costs, 1, CHEAP)
    assert not costs.inline(4)
    assert costs.inline(1)


def test_a_cheap_batch_asks_the_system_for_nothing() -> None:
    core = Core()
    costs = _costs(core)
    for _ in range(100):
        core.inline(costs, 1, CHEAP)
    assert core.asked == 0
    core.inline(costs, 1, CHEAP, away=DEAR)
    assert core.asked == 0
    core.inline(costs, 4, CHEAP)
    assert core.asked == 0
    for _ in range(100):
        core.inline(costs, 1, CHEAP)
    assert core.asked == 40


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-6, INLINE_SECONDS), st.floats(0, 1)), max_size=200))
def test_what_never_takes_longer_than_the_budget_of_its_own_stays_on_the_loop(
    batches: list[tuple[float, float]],
) -> None:
    core = Core()
    costs = _costs(core)
    for seconds, away in batches:
        core.inline(costs, 2, seconds, away)
        assert costs.inline(2)


class Steps(Engine):
    """Takes the seconds of its own and the seconds away from the core that `script` says, going round."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
    runtime = platform = backend = "none"

    def __init__(self, core: Core, *script: tuple[float, float]) -> None:
        self.core = core
        self.script = script
        self.runs = 0

    def run(self, inputs: Mapping[str, Array], _outputs: Sequence[str]) -> list[Array]:
        self.core.work(*self.script[self.runs % len(self.script)])
        self.runs += 1
        return [np.zeros_like(inputs["x"])]


@pytest.mark.parametrize(
    ("script", "found", "runs"),
    [
        ([(CHEAP, 0.0)], CHEAP, 3),
        ([(CHEAP, DEAR), (CHEAP, DEAR), (CHEAP, DEAR), (CHEAP, 0.0)], CHEAP, 12),
        ([(CHEAP, DEAR)], CHEAP + DEAR, 12),
        ([(DEAR, DEAR)], 2 * DEAR, 3),
        ([(DEAR, 0.0)], DEAR, 3),
    ],
    ids=["quiet", "crowded", "hopeless", "dear and crowded", "dear"],
)
def test_warm_up_waits_for_a_quiet_moment(script: list[tuple[float, float]], found: float, runs: int) -> None:
    core = Core()
    engine = Steps(core, *script)
    measured = measure(engine, engine.signature, 1, usage=core.usage, clock=lambda: core.now)
    assert measured == {1: pytest.approx(found)}
    assert engine.runs == runs


def test_the_systems_own_figures_are_of_this_thread() -> None:
    switches, before = thread_usage()

    def busy() -> None:
        began = thread_usage()[1]
        while thread_usage()[1] < began + 0.02:
            pass

    other = threading.Thread(target=busy)
    other.start()
    other.join()
    theirs = thread_usage()[1] - before
    busy()
    after, cpu = thread_usage()
    assert theirs < 0.02 <= cpu - before
    assert after >= switches


def test_a_batch_that_kept_its_core_took_what_the_clock_says() -> None:
    core = Core()
    meter = Meter(core.usage)
    meter.begin()
    core.work(CHEAP)
    assert (meter.end(DEAR), meter.disturbed) == (DEAR, False)
    meter.begin()
    core.work(CHEAP, away=DEAR)
    assert meter.end(CHEAP + DEAR) == pytest.approx(CHEAP)
    assert meter.disturbed
