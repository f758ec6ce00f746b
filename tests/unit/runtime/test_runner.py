"""Several instances: that they run at the same time, where, and how one that is stuck is noticed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Engine, Signature, TensorSpec
from serinus_runtime.runner import ThreadRunner, cores
from serinus_runtime.server import Loaded
from unit.runtime import support


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(support.WAIT)
        loop.close()


def _run(runner: ThreadRunner, works: Sequence[Callable[[], None]]) -> None:
    done = threading.Semaphore(0)
    for work in works:
        runner.start(work, lambda: done.release() and None)
    for _ in works:
        assert done.acquire(timeout=support.WAIT)


class Meeting(Engine):
    """Answers only when two batches are inside at the same time."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
    runtime = "meeting-1"
    platform = "meeting"
    backend = "meeting"
    instances = 2

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        self._barrier.wait(support.WAIT)
        return [np.asarray(inputs["x"], np.float32).sum(axis=1, keepdims=True)]


def test_two_instances_work_at_the_same_time() -> None:
    engine = Meeting()
    with support.Live(Loaded(engine, engine.signature, "", 0.0), batch_max_size=1) as live:
        answers: list[object] = []

        def ask(number: float) -> None:
            answers.append(support.infer(live.port, [number, 0, 0])[2]["outputs"][0]["data"])

        threads = [threading.Thread(target=ask, args=(number,)) for number in (1.0, 2.0, 3.0, 4.0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(support.WAIT)
        assert sorted(answers) == [[1.0], [2.0], [3.0], [4.0]]  # type: ignore[type-var]


@pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")
def test_pinned_threads_stay_on_their_core() -> None:
    seen: list[set[int]] = []
    meet = threading.Barrier(2)

    def work() -> None:
        meet.wait(support.WAIT)
        seen.append(os.sched_getaffinity(0))

    with _loop() as loop:
        runner = ThreadRunner(loop, 2, cores=cores())
        _run(runner, [work, work])
        runner.close()
    assert sorted(map(sorted, seen)) == [[cores()[0]], [cores()[1]]]
    assert os.sched_getaffinity(0) == set(cores())


def test_a_batch_that_takes_too_long_is_noticed() -> None:
    now = 100.0
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        leave.wait(support.WAIT)

    with _loop() as loop:
        runner = ThreadRunner(loop, 2, stuck_after=30.0, clock=lambda: now)
        done = threading.Event()
        runner.start(work, done.set)
        assert entered.wait(support.WAIT)
        now = 129.9
        assert (runner.alive(), runner.stuck()) == (True, 0)
        now = 130.0
        assert (runner.alive(), runner.stuck()) == (False, 1)
        leave.set()
        assert done.wait(support.WAIT)
        assert runner.alive()
        runner.close()
        assert not runner.alive()


def test_liveness_fails_while_a_batch_is_stuck(engine: support.GateEngine) -> None:
    engine.gate.clear()
    with support.Live(support.gated(engine), stuck_after=0.05) as live:
        assert support.request(live.port, "GET", "/v2/health/live")[0] == 200
        asked = threading.Thread(target=support.infer, args=(live.port, [1, 2, 3]))
        asked.start()
        assert engine.started.acquire(timeout=support.WAIT)
        while support.request(live.port, "GET", "/v2/health/live")[0] == 200:
            pass
        assert support.request(live.server.metrics_port, "GET", "/healthz")[0] == 503
        assert support.request(live.port, "GET", "/v2/health/ready")[0] == 503
        engine.gate.set()
        asked.join(support.WAIT)
        assert support.request(live.port, "GET", "/v2/health/live")[0] == 200
