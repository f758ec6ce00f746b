"""Worker processes, real ones: what they answer, how they die, and what becomes of their work."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from serinus_runtime.engine import EngineError, EngineTimeoutError, frames
from serinus_runtime.engine.frames import ConnectionLostError, Message
from serinus_runtime.engine.remote import RemoteEngine
from serinus_runtime.engine.worker import Program, WorkerLimits, WorkerPool
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.server import Loaded
from unit.runtime import support

_PROGRAM = "unit.runtime.programs:Misbehaving"
_DOUBLER = "unit.runtime.programs:Doubler"


@contextmanager
def _pool(count: int = 1, limits: WorkerLimits = WorkerLimits(), **arguments: Any) -> Iterator[WorkerPool]:  # noqa: B008
    pool = WorkerPool(Program(_PROGRAM, arguments), count, limits)
    try:
        yield pool
    finally:
        pool.close()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + support.WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(__file__).parent.parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH")))))


@pytest.fixture(scope="module")
def steady() -> Iterator[WorkerPool]:
    """A pool for tests that do it no harm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
        pool = WorkerPool(Program(_PROGRAM, {"greeting": "bonjour"}))
    yield pool
    pool.close()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
        np.array(7, dtype=np.float16),
        np.zeros((0, 3), np.uint8),
        np.array([[True], [False]]),
        np.array([["a", "é"], ["", "long" * 1000]], dtype=object),
        np.array([1.5, -2.25], dtype=ml_dtypes.bfloat16),
        np.zeros(5_000_000, np.float64),
    ],
    ids=str,
)
def test_arrays_go_there_and_back(steady: WorkerPool, array: Any) -> None:
    assert steady.described == {"greeting": "bonjour"}
    back = steady.call("echo", {}, {"a": array, "b": array})
    for name in ("a", "b"):
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back[name], array)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        some.arrays(
            st.sampled_from([np.float32, np.int8, np.uint64, np.bool_]), some.array_shapes(min_dims=0, min_side=0)
        ),
        max_size=4,
    ),
    st.text(max_size=20),
)
def test_every_message_is_read_as_it_was_sent(arrays: dict[str, Any], op: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        frames.send(here, Message(op, {"x": [1, "two"]}, arrays))
        got = frames.receive(there)
    assert (got.op, got.meta, list(got.arrays)) == (op, {"x": [1, "two"]}, list(arrays))
    for name, array in arrays.items():
        assert (got.arrays[name].dtype, got.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got.arrays[name], array)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_lost_connection_and_nothing_else(data: bytes) -> None:
    here, there = socket.socketpair()
    with there:
        with here:
            here.sendall(data)
        with pytest.raises(ConnectionLostError):
            frames.receive(there, time.monotonic() + 5)


@pytest.mark.parametrize("dtype", ["O", "V8", "M8[s]", "S10", "nonsense"])
def test_only_numbers_come_as_raw_bytes(dtype: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        header = frames._encoder.encode(["ok", {}, [["a", dtype, [1]]]])
        here.sendall(len(header).to_bytes(4, "little") + header + bytes(64))
        with pytest.raises(ConnectionLostError, match="no message"):
            frames.receive(there, time.monotonic() + 5)


def test_an_error_of_the_program_ends_nothing(steady: WorkerPool) -> None:
    before = steady.pids()
    with pytest.raises(EngineError, match=r"^ValueError: not these$"):
        steady.call("raise", {}, {})
    assert steady.call("pid", {}, {})["pid"] == before[0]


def test_what_a_program_prints_does_not_come_out_of_the_server(
    steady: WorkerPool, capfd: pytest.CaptureFixture[str]
) -> None:
    steady.call("print", {}, {})
    assert "this must not" not in capfd.readouterr().out


def test_work_of_a_process_that_dies_is_done_by_the_next(tmp_path: Path) -> None:
    with _pool(marker=str(tmp_path / "died")) as pool:
        (first,) = pool.pids()
        assert pool.call("die once", {}, {})["done"]
        assert pool.call("pid", {}, {})["pid"] != first
        assert (pool.restarts["crash"], pool.ready) == (1, 1)


def test_work_that_kills_twice_is_given_up() -> None:
    with _pool() as pool:
        with pytest.raises(EngineError, match="two worker processes died"):
            pool.call("die", {}, {})
        assert pool.call("echo", {}, {}) == {}
        assert pool.restarts["crash"] == 2


def test_a_process_that_dies_over_and_over_never_looks_like_one_that_hangs() -> None:
    """The keeper ends a process while its caller still listens: the socket may not be closed under it."""
    with _pool(limits=WorkerLimits(call=5.0)) as pool:
        for _ in range(2):
            with pytest.raises(EngineError, match="two worker processes died"):
                pool.call("die", {}, {})
        assert pool.restarts["stuck"] == 0


def test_a_process_that_hangs_is_killed_and_replaced() -> None:
    with _pool(limits=WorkerLimits(call=0.5)) as pool:
        (first,) = pool.pids()
        with pytest.raises(EngineTimeoutError, match=r"no answer in 0\.5 s"):
            pool.call("hang", {}, {})
        _until(lambda: pool.ready == 1)
        assert pool.restarts["stuck"] == 1
        assert _gone(first)
    with _pool() as pool:
        assert pool.call("pid", {}, {})["pid"] == pool.pids()[0]


def test_a_process_that_takes_too_much_memory_is_killed_and_replaced() -> None:
    with _pool(limits=WorkerLimits(memory=300 << 20)) as pool:
        assert pool.call("grow", {"bytes": 1 << 20}, {})["done"]
        # More than the limit of the address space at once: the program sees a MemoryError and lives on.
        with pytest.raises(EngineError, match="Unable to allocate"):
            pool.call("grow", {"bytes": 4 << 30}, {})
        assert sum(pool.restarts.values()) == 0
        with suppress(EngineError):
            # It may be killed before it has answered, and so may the one that is asked next.
            pool.call("grow", {"bytes": 400 << 20}, {})
        _until(lambda: pool.restarts["memory"] >= 1 and pool.ready == 1)
        assert pool.restarts["crash"] == 0


def test_an_idle_process_that_is_killed_is_replaced() -> None:
    with _pool(count=2) as pool:
        assert pool.ready == 2
        os.kill(pool.pids()[0], signal.SIGKILL)
        _until(lambda: pool.restarts["crash"] == 1 and pool.ready == 2)
        assert pool.alive(0.0)


def test_garbage_from_a_process_is_a_crash() -> None:
    with _pool() as pool, pytest.raises(EngineError, match="two worker processes died"):
        pool.call("garbage", {}, {})


def test_two_processes_work_at_the_same_time() -> None:
    with _pool(count=2, limits=WorkerLimits(call=2.0)) as pool:

        def hang() -> None:
            with pytest.raises(EngineTimeoutError):
                pool.call("hang", {}, {})

        hung = threading.Thread(target=hang)
        hung.start()
        while hung.is_alive():
            assert pool.call("echo", {}, {}) == {}
        hung.join()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (Program("unit.runtime.programs:refuse", {"text": "no such model"}), "RuntimeError: no such model"),
        (Program("unit.runtime.programs:leave"), "it died while starting"),
        (Program("unit.runtime.programs:nothing"), "AttributeError"),
        (Program("no.such.module:nothing"), "ModuleNotFoundError"),
    ],
)
def test_a_program_that_does_not_start(program: Program, text: str) -> None:
    with pytest.raises(FailureError, match=text) as caught:
        WorkerPool(program)
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


def test_a_program_that_does_not_start_again_is_tried_again_and_health_says_so(tmp_path: Path) -> None:
    code = tmp_path / "fickle.py"
    code.write_text("from unit.runtime.programs import Misbehaving as make\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ["PYTHONPATH"])))
        pool = WorkerPool(Program("fickle:make"))
        try:
            code.write_text("raise RuntimeError('gone')")
            os.kill(pool.pids()[0], signal.SIGKILL)
            _until(lambda: pool.restarts["start"] >= 2)
            assert not pool.alive(0.0)
            assert pool.alive(1000.0)
            code.write_text("from unit.runtime.programs import Misbehaving as make\n")
            _until(lambda: pool.ready == 1)
            assert pool.alive(0.0)
        finally:
            pool.close()


def test_the_processes_end_with_the_pool() -> None:
    with _pool(count=2) as pool:
        pids = pool.pids()
    assert all(_gone(pid) for pid in pids)


def test_an_engine_in_a_process_serves_as_one_in_the_server_does() -> None:
    engine = RemoteEngine(Program(_DOUBLER), 1, WorkerLimits(call=3.0))
    loaded = Loaded(engine, engine.signature, "sha256:" + "0" * 64, 0.0)
    with support.Live(loaded) as live:
        status, _, answer = support.infer(live.port, [1, 2, 3])
        assert (status, answer["outputs"][0]["data"]) == (200, [2.0, 4.0, 6.0])
        status, _, answer = support.infer(live.port, [667, 2, 3])
        assert (status, answer["error"]) == (500, "the model failed: EngineError: 667 is not a number I like")
        status, _, answer = support.infer(live.port, [666, 2, 3])
        assert (status, answer["error"]) == (500, "the model failed: two worker processes died at these inputs")
        status, _, answer = support.infer(live.port, [668, 2, 3])
        assert (status, answer["error"]) == (504, "the model failed: a worker process gave no answer in 3 s")
        _until(lambda: engine.pool.ready == 1)
        assert support.infer(live.port, [1, 2, 3])[0] == 200
        metrics = live.metrics()
        assert metrics['serinus_worker_restarts_total{reason="crash"}'] == 2
        assert metrics['serinus_worker_restarts_total{reason="stuck"}'] == 1
        assert metrics["serinus_workers"] == 1
        assert metrics["serinus_worker_memory_bytes"] > 1 << 20
