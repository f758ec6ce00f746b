"""The batcher on a simulated clock: every schedule that Hypothesis can think of."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.batching import (
    Answer,
    Batcher,
    QueueFullError,
    QueueTimeoutError,
    TooManyRowsError,
)
from serinus_runtime.costs import Costs
from serinus_runtime.datatypes import Array


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """A clock, and an engine that takes `service` seconds for a batch."""

    def __init__(self, service: float = 0.01, instances: int = 1, poison: float | None = None) -> None:
        self.instances = instances
        self.time = 100.0
        self.batches: list[tuple[float, int]] = []
        self.running = 0
        self._service = service
        self._poison = poison
        self._events: list[tuple[float, int, Callable[[], None], _Timer]] = []
        self._order = count()

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer()
        heapq.heappush(self._events, (self.time + delay, next(self._order), callback, timer))
        return timer

    def start(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        self.running += 1
        assert self.running <= self.instances
        work()

        def finish() -> None:
            self.running -= 1
            done()

        self.call_later(self._service, finish)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        x = inputs["x"]
        self.batches.append((self.time, len(x)))
        if self._poison is not None and np.any(x == self._poison):
            raise RuntimeError("poisoned")
        made: dict[str, Array] = {"y": x * 2, "z": x + 1}
        return [made[name] for name in outputs]

    def until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            at, _, callback, timer = heapq.heappop(self._events)
            self.time = max(self.time, at)
            if not timer.cancelled:
                callback()
        self.time = max(self.time, end)


class Caller:
    """Sends rows with numbers of its own and keeps what comes back."""

    def __init__(self, batcher: Batcher, world: World) -> None:
        self._batcher = batcher
        self._world = world
        self._numbers = count(1)
        self.sent: list[tuple[Array, list[Answer | Exception], float]] = []
        self.answered_at: dict[int, float] = {}

    def send(self, rows: int, width: int = 1, outputs: tuple[str, ...] = ("y",)) -> int:
        x = np.array([[float(next(self._numbers))] * width for _ in range(rows)])
        index = len(self.sent)
        answers: list[Answer | Exception] = []

        def done(answer: Answer | Exception) -> None:
            answers.append(answer)
            self.answered_at[index] = self._world.time

        self.sent.append((x, answers, self._world.time))
        self._batcher.submit({"x": x}, rows, outputs, done)
        return index

    def answer(self, index: int) -> Answer | Exception:
        (only,) = self.sent[index][1]
        return only

    def check(self) -> None:
        for x, answers, _ in self.sent:
            assert len(answers) == 1
            answer = answers[0]
            assert isinstance(answer, Answer)
            for name, got in answer.outputs.items():
                np.testing.assert_array_equal(got, x * 2 if name == "y" else x + 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.02), st.integers(1, 12), st.integers(1, 2), st.sampled_from([("y",), ("z",), ("z", "y")])
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.003, 0.02]),
    st.integers(1, 3),
)
def test_every_caller_gets_its_own_rows_and_no_batch_is_too_large(
    schedule: list[tuple[float, int, int, tuple[str, ...]]], max_size: int, delay: float, instances: int
) -> None:
    world = World(instances=instances)
    batcher = Batcher(world.run, world, world, max_size=max_size, max_delay=delay, queue_rows=10_000, timeout=1e6)
    caller = Caller(batcher, world)
    for pause, rows, width, outputs in schedule:
        world.until(world.time + pause)
        caller.send(rows, width, outputs)
    world.until(world.time + 100)
    caller.check()
    assert max(size for _, size in world.batches) <= max_size
    assert sum(size for _, size in world.batches) == sum(rows for _, rows, _, _ in schedule)
    assert (batcher.waiting_rows, batcher.busy) == (0, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=40), st.sampled_from([0.001, 0.003, 0.02]))
def test_with_a_free_engine_nobody_waits_longer_than_the_delay(pauses: list[float], delay: float) -> None:
    world = World(service=0.0, instances=1000)
    batcher = Batcher(world.run, world, world, max_size=8, max_delay=delay, timeout=1e6)
    caller = Caller(batcher, world)
    for pause in pauses:
        world.until(world.time + pause)
        caller.send(1)
    world.until(world.time + 1)
    caller.check()
    assert all(caller.answered_at[index] - sent <= delay + 1e-9 for index, (_, _, sent) in enumerate(caller.sent))


def test_without_delay_a_free_engine_is_used_at_once() -> None:
    world = World()
    batcher = Batcher(world.run, world, world, max_size=8)
    caller = Caller(batcher, world)
    for _ in range(5):
        caller.send(1)
    world.until(101)
    assert [size for _, size in world.batches] == [1, 4]
    assert world.batches[0][0] == 100.0


def test_a_lone_request_does_not_wait_for_company() -> None:
    world = World(service=0.0)
    batcher = Batcher(world.run, world, world, max_size=8, max_delay=0.003)
    caller = Caller(batcher, world)
    for _ in range(20):
        index = caller.send(1)
        world.until(world.time + 0.5)
        assert caller.answered_at[index] == caller.sent[index][2]


def test_a_single_client_in_a_loop_hardly_ever_waits_for_company() -> None:
    world = World(service=0.0002)
    caller = Caller(Batcher(world.run, world, world, max_size=8, max_delay=0.003), world)
    for _ in range(1000):
        index = caller.send(1)
        while index not in caller.answered_at:
            world.until(world.time + 0.0001)
    waits = [caller.answered_at[index] - sent for index, (_, _, sent) in enumerate(caller.sent)]
    assert sum(wait > 0.001 for wait in waits) <= 20


def test_a_stream_is_gathered_until_full_or_until_the_oldest_is_due() -> None:
    world = World(service=0.0)
    batcher = Batcher(world.run, world, world, max_size=8, max_delay=0.01)
    caller = Caller(batcher, world)
    for _ in range(400):
        world.until(world.time + 0.001)
        caller.send(1)
    world.until(world.time + 1)
    caller.check()
    assert {size for _, size in world.batches[-20:-1]} == {8}


def test_the_queue_is_bounded_in_rows_and_bytes() -> None:
    world = World()
    caller = Caller(Batcher(world.run, world, world, max_size=4, queue_rows=8), world)
    for _ in range(9):
        caller.send(1)
    with pytest.raises(QueueFullError) as caught:
        caller.send(1)
    assert caught.value.retry_after > 0
    with pytest.raises(TooManyRowsError, match="9 rows in one request; at most 8"):
        caller.send(9)
    world.until(101)
    caller.sent = caller.sent[:9]
    caller.check()

    world = World()
    caller = Caller(Batcher(world.run, world, world, max_size=4, queue_rows=100, queue_bytes=100), world)
    caller.send(1, width=20)
    caller.send(1, width=10)
    with pytest.raises(QueueFullError):
        caller.send(1, width=10)


def test_requests_that_wait_too_long_are_told_so_while_the_engine_is_busy() -> None:
    world = World(service=5.0)
    caller = Caller(Batcher(world.run, world, world, max_size=4, timeout=0.2), world)
    first, second = caller.send(1), caller.send(1)
    world.until(100.3)
    assert isinstance(caller.answer(second), QueueTimeoutError)
    assert caller.answered_at[second] == pytest.approx(100.2, abs=0.001)
    world.until(120)
    assert isinstance(caller.answer(first), Answer)
    assert len(world.batches) == 1


def test_one_poisonous_request_does_not_fail_its_neighbours() -> None:
    world = World(poison=3.0)
    caller = Caller(Batcher(world.run, world, world, max_size=8), world)
    for _ in range(6):
        caller.send(1)
    world.until(101)
    kinds = [type(caller.answer(index)) for index in range(6)]
    assert kinds == [Answer, Answer, RuntimeError, Answer, Answer, Answer]


def test_a_cancelled_request_is_not_run() -> None:
    world = World()
    batcher = Batcher(world.run, world, world, max_size=2)
    caller = Caller(batcher, world)
    caller.send(1)
    gone: list[object] = []
    x = np.zeros((5, 1))
    batcher.submit({"x": x}, 5, ("y",), gone.append).cancel()
    batcher.submit({"x": x[:1]}, 1, ("y",), gone.append).cancel()
    last = caller.send(1)
    world.until(101)
    assert gone == []
    assert isinstance(caller.answer(last), Answer)
    assert sum(size for _, size in world.batches) == 2
    assert batcher.waiting_rows == 0


def test_a_model_without_rows_is_run_one_request_at_a_time() -> None:
    world = World()
    caller = Caller(Batcher(world.run, world, world, batched=False, max_size=8, max_delay=1), world)
    for _ in range(3):
        caller.send(2)
    world.until(101)
    caller.check()
    assert [size for _, size in world.batches] == [2, 2, 2]


def test_callbacks_may_submit_again() -> None:
    world = World()
    batcher = Batcher(world.run, world, world, max_size=2, timeout=0.05)
    answers: list[object] = []

    def again(answer: Answer | Exception) -> None:
        answers.append(answer)
        if len(answers) < 50:
            batcher.submit({"x": np.ones((1, 1))}, 1, ("y",), again)

    for _ in range(10):
        batcher.submit({"x": np.ones((1, 1))}, 1, ("y",), again)
    world.until(110)
    assert len(answers) == 59
    assert (batcher.waiting_rows, batcher.busy) == (0, 0)


class Ticks:
    """Arrivals of one tick of an event loop are in when `end` is called."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def end(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def test_what_comes_in_one_tick_goes_as_one_batch() -> None:
    world, ticks = World(), Ticks()
    caller = Caller(Batcher(world.run, world, world, max_size=8, soon=ticks.soon), world)
    for _ in range(5):
        caller.send(1)
    assert (world.batches, len(ticks.due)) == ([], 1)
    ticks.end()
    world.until(101)
    caller.check()
    assert [size for _, size in world.batches] == [5]


def test_cheap_batches_run_on_the_loop_and_dear_ones_do_not() -> None:
    world, ticks = World(), Ticks()
    costs = Costs({1: 0.0001, 2: 0.0002, 4: 0.0005, 8: 0.01})
    caller = Caller(Batcher(world.run, world, world, max_size=8, soon=ticks.soon, costs=costs), world)
    for _ in range(4):
        caller.send(1)
    ticks.end()
    caller.check()
    for _ in range(5):
        caller.send(1)
    ticks.end()
    assert world.running == 1
    assert caller.sent[-1][1] == []
    world.until(101)
    caller.check()
    assert [size for _, size in world.batches] == [4, 5]


def test_the_loop_is_not_held_for_longer_than_its_budget() -> None:
    world, ticks = World(), Ticks()

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        world.time += 0.0006
        return world.run(inputs, outputs)

    costs = Costs({1: 0.0006, 2: 0.0006}, budget=0.001)
    batcher = Batcher(run, world, world, max_size=2, soon=ticks.soon, costs=costs)
    caller = Caller(batcher, world)
    for _ in range(10):
        caller.send(1)
    left = []
    while ticks.due:
        ticks.end()
        left.append(batcher.waiting_rows)
    assert left == [6, 2, 0]
    caller.check()


def test_callers_of_inline_batches_may_submit_again() -> None:
    world, ticks = World(), Ticks()
    batcher = Batcher(world.run, world, world, max_size=4, soon=ticks.soon, costs=Costs({1: 1e-5, 4: 1e-5}))
    answers: list[object] = []

    def again(answer: Answer | Exception) -> None:
        answers.append(answer)
        if len(answers) < 50:
            batcher.submit({"x": np.ones((1, 1))}, 1, ("y",), again)

    for _ in range(10):
        batcher.submit({"x": np.ones((1, 1))}, 1, ("y",), again)
    while ticks.due:
        ticks.end()
    assert len(answers) == 59
    assert all(isinstance(answer, Answer) for answer in answers)
    assert (batcher.waiting_rows, batcher.busy) == (0, 0)


def test_estimates_follow_what_is_seen_and_survive_a_bad_moment() -> None:
    costs = Costs({1: 0.0001, 2: 0.0002, 4: 0.0003}, usage=lambda: (0, 0.0))
    assert costs.inline(3)
    assert not costs.inline(5)
    costs.ran_inline(4, 5.0)
    assert costs.inline(4)
    for _ in range(100):
        costs.begins_inline(4)
        costs.ran_inline(4, 0.002)
    assert not costs.inline(4)
    for _ in range(200):
        costs.ran_elsewhere(4)
    assert costs.inline(4)
    assert not Costs().inline(1)
