"""What the batcher does beside batching: priorities, deadlines, preferred sizes, delays that are worth it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.batching import Answer, Batcher, DeadlinePassedError, QueueFullError, QueueTimeoutError
from unit.runtime.test_batching import World

_X = np.ones((1, 1))


class _Asked:
    """Requests by name, and the order in which they were answered."""

    def __init__(self, batcher: Batcher, world: World) -> None:
        self._batcher = batcher
        self._world = world
        self.answers: dict[object, Answer | Exception] = {}
        self.at: dict[object, float] = {}

    def ask(self, name: object, *, rows: int = 1, priority: int = 0, wait: float | None = None) -> None:
        def done(answer: Answer | Exception) -> None:
            assert name not in self.answers
            self.answers[name] = answer
            self.at[name] = self._world.time

        deadline = None if wait is None else self._world.time + wait
        self._batcher.submit({"x": np.ones((rows, 1))}, rows, ("y",), done, priority=priority, deadline=deadline)

    @property
    def order(self) -> list[object]:
        return [name for name, answer in self.answers.items() if isinstance(answer, Answer)]


def test_the_highest_priority_goes_first_and_equals_in_order() -> None:
    world = World()
    asked = _Asked(Batcher(world.run, world, world, max_size=1), world)
    asked.ask("running")
    for index in range(3):
        for priority in (4, 0, -4):
            asked.ask((priority, index), priority=priority)
    world.until(102)
    assert asked.order == ["running", *((priority, index) for priority in (-4, 0, 4) for index in range(3))]


def test_nobody_starves() -> None:
    # One in 10 ms is served, and as many of the highest level come: without ageing, the low one waits for ever.
    world = World(service=0.01)
    asked = _Asked(Batcher(world.run, world, world, max_size=1, timeout=2.0), world)
    for index in range(5):
        asked.ask(("first", index), priority=-4)
    asked.ask("low", priority=4)
    for index in range(300):
        asked.ask(index, priority=-4)
        world.until(world.time + 0.01)
    world.until(world.time + 10)
    # Eight levels, each a tenth of the time-out, and what was in front of it.
    assert asked.at["low"] - 100 == pytest.approx(8 * 0.2 + 0.06, abs=0.03)
    assert len(asked.order) == 306


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.05),
            st.integers(1, 6),
            st.integers(-4, 4),
            st.none() | st.floats(0.001, 0.25) | st.floats(0.35, 0.5),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([0.0, 0.003, 0.02]),
    st.lists(st.integers(1, 8), max_size=3),
    st.floats(0.001, 0.2),
)
def test_every_request_is_answered_once_in_time_or_not_run(
    schedule: list[tuple[float, int, int, float | None, bool]], delay: float, preferred: list[int], service: float
) -> None:
    world = World(service=service)
    batcher = Batcher(
        world.run, world, world, max_size=4, max_delay=delay, timeout=0.3, preferred=preferred, queue_rows=30
    )
    asked = _Asked(batcher, world)
    sent: dict[int, tuple[float, float | None]] = {}
    refused = gone = ran = 0
    for index, (pause, rows, priority, wait, leaves) in enumerate(schedule):
        world.until(world.time + pause)
        try:
            if leaves:
                batcher.submit({"x": np.ones((rows, 1))}, rows, ("y",), lambda _: pytest.fail("it has left")).cancel()
                gone += 1
                continue
            asked.ask(index, rows=rows, priority=priority, wait=wait)
        except QueueFullError:
            refused += 1
            continue
        sent[index] = (world.time, wait)
    world.until(world.time + 100)
    assert set(asked.answers) == set(sent)
    for index, answer in asked.answers.items():
        assert isinstance(index, int)
        at, wait = sent[index]
        if isinstance(answer, Answer):
            ran += 1
            assert answer.started - at <= min(0.3, wait or 1.0) + 1e-6
            assert answer.started + service == pytest.approx(asked.at[index]) or schedule[index][1] > 4
        else:
            assert isinstance(answer, DeadlinePassedError) == (wait is not None and wait < 0.3)
            assert asked.at[index] - at <= min(0.3, wait or 1.0) + 0.001
    assert len(sent) + refused + gone == len(schedule)
    assert (batcher.waiting_rows, batcher.busy, batcher.waiting_bytes) == (0, 0, 0)
    assert max((size for _, size in world.batches), default=0) <= 4
    assert sum(size for _, size in world.batches) >= ran


def test_a_deadline_that_passes_in_the_queue_is_told_when_it_passes() -> None:
    world = World(service=5.0)
    asked = _Asked(Batcher(world.run, world, world, max_size=4, timeout=1.0), world)
    asked.ask("running")
    asked.ask("patient")
    asked.ask("hasty", wait=0.1)
    asked.ask("very patient", wait=50.0)
    world.until(120)
    assert isinstance(asked.answers["hasty"], DeadlinePassedError)
    assert asked.at["hasty"] == pytest.approx(100.1, abs=0.001)
    for name in ("patient", "very patient"):
        assert type(asked.answers[name]) is QueueTimeoutError
        assert asked.at[name] == pytest.approx(101.0, abs=0.001)
    assert asked.order == ["running"]
    assert len(world.batches) == 1


def test_preferred_sizes_are_filled_exactly() -> None:
    world = World()
    asked = _Asked(Batcher(world.run, world, world, max_size=32, preferred=(8, 16)), world)
    asked.ask("first")
    for index in range(13):
        asked.ask(index)
    world.until(101)
    assert [size for _, size in world.batches] == [1, 8, 5]
    for index in range(60):
        asked.ask((1, index))
    world.until(102)
    assert [size for _, size in world.batches][3:] == [1, 32, 16, 8, 3]


def test_the_smallest_preferred_size_is_worth_sending_at_once() -> None:
    world = World(service=0.0)
    asked = _Asked(Batcher(world.run, world, world, max_size=32, max_delay=0.05, preferred=(4, 8)), world)
    for index in range(200):
        asked.ask(index)
        world.until(world.time + 0.001)
    world.until(world.time + 1)
    assert {size for _, size in world.batches[20:-1]} == {4}


class _Machine(World):
    """An engine whose batches cost `fixed` and `per_row` seconds."""

    def __init__(self, fixed: float, per_row: float) -> None:
        super().__init__()
        self._fixed = fixed
        self._per_row = per_row

    def start(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        before = len(self.batches)
        work()
        rows = sum(size for _, size in self.batches[before:])
        self.running += 1

        def finish() -> None:
            self.running -= 1
            done()

        self.call_later(self._fixed + self._per_row * rows, finish)


def _closed_loop(delay: float, clients: int, fixed: float, per_row: float, spread: float) -> float:
    """Seconds for 300 rounds, when every client asks again `spread` seconds after its neighbour does."""
    world = _Machine(fixed, per_row)
    batcher = Batcher(world.run, world, world, max_size=32, max_delay=delay, timeout=1e6)
    left = 300 * clients

    def again(client: int) -> None:
        def done(_: Answer | Exception) -> None:
            nonlocal left
            left -= 1
            world.call_later(0.00005 + spread * client, lambda: again(client))

        batcher.submit({"x": _X}, 1, ("y",), done)

    for client in range(clients):
        again(client)
    while left > 0:
        world.until(world.time + 0.01)
    return world.time - 100.0


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 16),
    st.sampled_from([0.001, 0.003, 0.01]),
    st.floats(0.0003, 0.01),
    st.floats(0.0, 0.0005),
    st.sampled_from([0.0, 0.00002]),
)
def test_a_delay_costs_next_to_nothing_when_all_clients_wait_for_their_answers(
    clients: int, delay: float, fixed: float, per_row: float, spread: float
) -> None:
    without = _closed_loop(0.0, clients, fixed, per_row, spread)
    # Whether waiting helps is tried after 1, 2, 4, 8 ... rounds: nine times in 300, not every time.
    assert _closed_loop(delay, clients, fixed, per_row, spread) <= 1.1 * without + 12 * delay


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 0.02), min_size=5, max_size=60), st.sampled_from([0.001, 0.003]))
def test_a_delay_adds_nothing_while_requests_come_rarely(pauses: list[float], delay: float) -> None:
    world = World(service=0.0005)
    asked = _Asked(Batcher(world.run, world, world, max_size=8, max_delay=delay), world)
    for index, pause in enumerate(pauses):
        world.until(world.time + delay + 0.001 + pause)
        at = world.time
        asked.ask(index)
        world.until(at + 0.0005)
        assert asked.at[index] - at == pytest.approx(0.0005)


def test_a_delay_still_gathers_a_stream_for_an_engine_that_is_free() -> None:
    # 2000 a second at random, delay 5 ms: ten would come in that time.
    random = np.random.default_rng(3)
    world = World(service=0.0001)
    asked = _Asked(Batcher(world.run, world, world, max_size=64, max_delay=0.005), world)
    for index, pause in enumerate(random.exponential(0.0005, 4000)):
        world.until(world.time + pause)
        asked.ask(index)
    world.until(world.time + 1)
    assert len(asked.order) == 4000
    assert 4000 / len(world.batches) > 7
