"""What is remembered, by request and by row, in memory and in Redis: it is never another answer, only a cheaper one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.batching import QueueFullError
from serinus_runtime.cache import ResponseCache
from serinus_runtime.redislink import RedisLink, RedisUnavailableError, check_url
from serinus_runtime.remembering import Remembering
from serinus_runtime.sharedcache import SharedCache, decode, encode
from serinus_runtime.tickets import Call, Ticket
from unit.runtime.redis_server import RedisServer, redis_server
from unit.runtime.support import GateEngine, Live, gated, infer

WAIT = 60.0


class Asked:
    """A ticket that remembers that it was done."""

    def __init__(self, rows: list[list[float]], outputs: tuple[str, ...] = ("y",)) -> None:
        inputs = {"x": np.array(rows, dtype=np.float32).reshape(len(rows), -1)}
        self.ticket = Call(inputs, len(rows), outputs, self._done)
        self.ticket.held = 1
        self.answered = 0

    def _done(self, _: object) -> None:
        self.answered += 1


class Model:
    """Runs tickets at once and remembers how many rows it was given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def put(self, ticket: Ticket) -> None:
        x = ticket.inputs["x"]
        assert len(x) == ticket.rows
        self.rows.append(len(x))
        found = {"y": x.sum(axis=1, keepdims=True), "z": np.array([[str(row)] for row in x.tolist()], dtype=object)}
        ticket.result = [found[name] for name in ticket.outputs]
        ticket.done()


def values(asked: Asked) -> list[Any]:
    assert isinstance(asked.ticket.result, list)
    return [array.tolist() for array in asked.ticket.result]


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1, max_size=6),
            st.sampled_from([("y",), ("y", "z"), ("z", "y")]),
        ),
        max_size=12,
    ),
    st.sampled_from([0, 4_000, 1 << 20]),
)
def test_what_is_remembered_is_what_the_model_says(
    by_row: bool, requests: list[tuple[list[list[float]], tuple[str, ...]]], size: int
) -> None:
    """For any sequence of requests with repeated rows, and with a memory that keeps nothing, a little, or all."""
    model, plain = Model(), Model()
    cache = Remembering(ResponseCache(size, 60.0, lambda: 0.0), None, lambda: 0.0, by_row=by_row)
    for rows, outputs in requests:
        asked, wanted = Asked(rows, outputs), Asked(rows, outputs)
        cache.ask(asked.ticket, model.put)
        plain.put(wanted.ticket)
        assert asked.answered == 1
        assert values(asked) == values(wanted)
    if by_row and size > 100_000:
        assert sum(model.rows) == len({(tuple(row), outputs) for rows, outputs in requests for row in rows})


def test_only_unknown_rows_are_computed() -> None:
    model = Model()
    cache = Remembering(ResponseCache(1 << 20, 60.0, lambda: 0.0), None, lambda: 0.0, by_row=True)
    cache.ask(Asked([[1, 1], [2, 2]]).ticket, model.put)
    again = Asked([[2, 2], [3, 3], [1, 1], [3, 3]])
    cache.ask(again.ticket, model.put)
    assert model.rows == [2, 1]
    assert values(again) == [[[4.0], [6.0], [2.0], [6.0]]]


def test_a_failure_is_told_and_not_remembered() -> None:
    cache = Remembering(ResponseCache(1 << 20, 60.0, lambda: 0.0), None, lambda: 0.0, by_row=True)

    def fail(ticket: Ticket) -> None:
        ticket.result = RuntimeError("poisoned")
        ticket.done()

    asked = Asked([[1, 1]])
    cache.ask(asked.ticket, fail)
    assert (asked.answered, str(asked.ticket.result)) == (1, "poisoned")
    second = Asked([[1, 1]])
    cache.ask(second.ticket, Model().put)
    assert values(second) == [[[2.0]]]


def test_a_caller_who_goes_takes_the_unknown_rows_along() -> None:
    cache = Remembering(ResponseCache(1 << 20, 60.0, lambda: 0.0), None, lambda: 0.0, by_row=True)
    waiting: list[Ticket] = []
    asked = Asked([[1, 1]])
    cache.ask(asked.ticket, waiting.append)
    asked.ticket.cancel()
    assert waiting[0].cancelled


@given(
    st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]),
    st.lists(st.integers(0, 1), min_size=0, max_size=12),
    st.lists(st.text(max_size=5), max_size=4),
)
def test_arrays_survive_the_way_to_redis(dtype: str, numbers: list[int], texts: list[str]) -> None:
    strings = np.empty((len(texts), 1), dtype=object)
    strings[:, 0] = texts
    outputs = {"a": np.array(numbers, dtype=dtype).reshape(-1, 1), "b": strings}
    found = decode(encode(outputs), ["b", "a"])
    assert found is not None
    for name, array in outputs.items():
        assert found[name].dtype == array.dtype
        assert found[name].tolist() == array.tolist()
        assert found[name].shape == array.shape


@given(st.binary(max_size=60))
def test_what_strangers_wrote_is_a_miss(data: bytes) -> None:
    assert decode(data, ["y"]) is None


def test_another_model_outputs_or_shapes_are_a_miss() -> None:
    data = encode({"y": np.zeros((1, 2), dtype=np.float32)})
    assert decode(data, ["x"]) is None
    assert decode(data[:-1], ["y"]) is None
    assert decode(data.replace(b"<f4", b"|O8"), ["y"]) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("localhost:6379", "write redis://HOST:6379/0"), ("http://a", "write redis://HOST"), ("redis://", "write redis"),
     ("redis://:secret@a", "SERINUS_REDIS_PASSWORD_FILE"), ("redis://a?password=x", "SERINUS_REDIS_PASSWORD_FILE"),
     ("redis://a:99999", "write redis://HOST")],
)  # fmt: skip
def test_addresses_of_redis_are_checked(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        check_url(text)
    assert check_url("rediss://cache.shop:6379/1") == "rediss://cache.shop:6379/1"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), WAIT))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - conditions of the code under test set no event
        await asyncio.sleep(0.002)


def _remembering(link: RedisLink, prefix: str, *, by_row: bool = False, timeout: float = WAIT) -> Remembering:
    shared = SharedCache(link, prefix, 60.0, timeout)
    return Remembering(ResponseCache(1 << 20, 60.0, time.monotonic), shared, time.monotonic, by_row=by_row)


@pytest.mark.parametrize("by_row", [True, False])
def test_replicas_share_what_they_computed(redis: RedisServer, by_row: bool) -> None:
    async def main() -> None:
        link = RedisLink(redis.url)
        prefix = f"share-{by_row}"
        one, other, stranger = (_remembering(link, name, by_row=by_row) for name in (prefix, prefix, "another-digest"))
        model = Model()
        rows: list[list[float]] = [[1, 2], [3, 4]]
        for cache in (one, other, stranger):
            asked = Asked(rows, ("y", "z"))
            cache.ask(asked.ticket, model.put)
            await until(lambda asked=asked: asked.answered == 1)
            assert values(asked) == [[[3.0], [7.0]], [["[1.0, 2.0]"], ["[3.0, 4.0]"]]]
            if cache is one:
                await until(lambda: int(redis.command("DBSIZE")) >= len(model.rows))
                assert one.shared is not None
                await one.shared.close()
        assert model.rows == [2, 2]
        assert other.shared is not None
        assert (other.shared.hits, other.shared.misses) == (2 if by_row else 1, 0)
        await link.close()

    run(main)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for the circuit of a link to Redis."""
    now = [1000.0]
    monkeypatch.setattr("serinus_runtime.redislink.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_redis_that_dies_costs_nothing_but_hits_and_is_found_again(redis: RedisServer, clock: list[float]) -> None:
    async def main() -> None:
        link = RedisLink(redis.url)
        cache = _remembering(link, "dies", timeout=WAIT)
        assert cache.shared is not None
        model = Model()

        async def ask(value: float) -> None:
            asked = Asked([[value, 0]])
            cache.ask(asked.ticket, model.put)
            await until(lambda: asked.answered == 1)
            assert values(asked) == [[[value]]]

        await ask(0)
        assert cache.shared.misses == 1
        redis.kill()
        for value in range(1, 40):
            await ask(value)
        assert cache.shared.errors == 39
        assert link.failures <= 8, "three in a row, and what was under way meanwhile"
        redis.start()
        try:
            value = 100.0
            while cache.shared.misses == 1:
                clock[0] += 0.6
                await ask(value)
                value += 1
        finally:
            await link.close()

    run(main)


def test_a_redis_that_hangs_is_waited_for_a_moment_only(redis: RedisServer, clock: list[float]) -> None:
    async def main() -> None:
        link = RedisLink(redis.url)
        cache = _remembering(link, "hangs", timeout=0.005)
        assert cache.shared is not None
        model = Model()
        redis.pause()
        try:
            for value in range(30):
                asked = Asked([[value, 1]])
                cache.ask(asked.ticket, model.put)
                await until(lambda asked=asked: asked.answered == 1)
            # The circuit is open after three: the rest did not even ask.
            assert link.failures <= 5
            assert cache.shared.errors == 30
        finally:
            redis.resume()
        await link.close()

    run(main)


def test_a_full_queue_is_told_when_redis_has_nothing(redis: RedisServer) -> None:
    async def main() -> None:
        link = RedisLink(redis.url)
        cache = _remembering(link, "full")

        def full(ticket: Ticket) -> None:
            raise QueueFullError(1.0)

        asked = Asked([[1, 1]])
        cache.ask(asked.ticket, full)
        await until(lambda: asked.answered == 1)
        assert isinstance(asked.ticket.result, QueueFullError)
        gone = Asked([[1, 1]])
        model = Model()
        cache.ask(gone.ticket, model.put)
        gone.ticket.cancel()
        await until(lambda: cache.shared is not None and cache.shared.misses == 2)
        assert (gone.answered, model.rows) == (0, [])
        await link.close()

    run(main)


def test_the_password_is_read_from_its_file_at_every_connection(tmp_path: Path) -> None:
    async def main() -> None:
        with redis_server(tmp_path, "--requirepass", "first") as server:
            file = tmp_path / "password"
            file.write_text("wrong\n")
            link = RedisLink(server.url, password_file=file)

            async def ping(redis: Any) -> Any:
                return await redis.ping()

            with pytest.raises(RedisUnavailableError):
                await link.run(ping, 2.0)
            file.write_text("first\n")
            assert await link.run(ping, 2.0)
            await link.close()

    run(main)


def test_two_servers_share_and_outlive_their_redis(redis: RedisServer) -> None:
    one, other = GateEngine(), GateEngine()
    settings = {"response_cache": 1 << 20, "response_cache_shared": True, "redis_url": redis.url, "redis_timeout": 0.5}
    level = 'serinus_response_cache_lookups_total{level="shared",outcome="%s"}'
    with Live(gated(one), **settings) as first, Live(gated(other), **settings) as second:
        answers = [infer(first.port, [5, 5, 5])]
        until_sync(lambda: redis.command("--scan", "--pattern", "serinus:cache:model:0000*") != "")
        answers.append(infer(second.port, [5, 5, 5]))
        assert [answer[2]["outputs"][0]["data"] for answer in answers] == [[15.0], [15.0]]
        assert (one.batches, other.batches) == ([1], [])
        assert second.metrics()[level % "hit"] == 1
        redis.kill()
        assert [infer(second.port, [n, 0, 0])[2]["outputs"][0]["data"][0] for n in range(20)] == list(range(20))
        assert second.metrics()[level % "error"] == 20
        redis.start()
        misses = second.metrics()[level % "miss"]
        numbers = iter(range(100, 100_000))
        until_sync(
            lambda: infer(second.port, [next(numbers), 0, 0])[0] == 200 and second.metrics()[level % "miss"] > misses
        )


def test_rows_of_a_live_server_are_remembered_one_by_one() -> None:
    engine = GateEngine()
    with Live(gated(engine), response_cache=1 << 20, response_cache_by="row") as live:
        assert infer(live.port, [1, 0, 0], [2, 0, 0])[2]["outputs"][0]["data"] == [1.0, 2.0]
        assert infer(live.port, [3, 0, 0], [2, 0, 0], [1, 0, 0])[2]["outputs"][0]["data"] == [3.0, 2.0, 1.0]
        assert engine.batches == [2, 1]


def until_sync(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
