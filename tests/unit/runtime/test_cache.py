"""The response cache: bounds, age, counts, and that it never changes an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.cache import ResponseCache
from serinus_runtime.config import from_environment
from unit.runtime.support import GateEngine, Live, gated, infer, infer_body, request


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def y(value: float, count: int = 1) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return {"y": np.full(count, value)}


def test_answers_are_kept_for_their_time() -> None:
    clock = Clock()
    cache = ResponseCache(100_000, 10.0, clock)
    assert cache.get("a") is None
    cache.put("a", y(1))
    clock.now = 9.9
    found = cache.get("a")
    assert found is not None
    assert found["y"].tolist() == [1.0]
    clock.now = 10.0
    assert cache.get("a") is None
    assert (cache.hits, cache.misses, len(cache), cache.nbytes) == (1, 2, 0, 0)


def test_what_is_kept_is_a_copy_that_cannot_be_written() -> None:
    cache = ResponseCache(100_000, 10.0, Clock())
    batch = np.zeros((32, 1))
    cache.put("a", {"y": batch[:1]})
    batch[:] = 7
    found = cache.get("a")
    assert found is not None
    assert (found["y"].tolist(), found["y"].base) == ([[0.0]], None)
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 180)), max_size=60))
def test_bytes_are_bounded_and_the_least_used_goes_first(puts: list[tuple[int, int]]) -> None:
    cache = ResponseCache(20_000, 10.0, Clock())
    for key, count in puts:
        cache.put(key, y(key, count))
        assert 0 <= cache.nbytes <= 20_000
    kept = [key for key in range(31) if cache.get(key) is not None]
    assert len(kept) == len(cache)
    if puts and len(kept) > 1:
        assert puts[-1][0] in kept


def test_one_answer_does_not_push_out_all_others() -> None:
    cache = ResponseCache(20_000, 10.0, Clock())
    cache.put("a", y(1))
    cache.put("b", y(1, 1000))
    assert (cache.get("a") is not None, cache.get("b")) == (True, None)


def test_equal_requests_are_answered_without_the_model() -> None:
    engine = GateEngine()
    with Live(gated(engine), response_cache=1 << 20) as live:
        bodies = [infer(live.port, [1, 2, 3])[2]["outputs"] for _ in range(3)]
        assert bodies[0] == bodies[1] == bodies[2]
        assert infer(live.port, [1, 2, 4])[2]["outputs"][0]["data"] == [7.0]
        assert len(engine.batches) == 2
        assert infer(live.port, [666, 0, 0])[0] == 500
        assert infer(live.port, [666, 0, 0])[0] == 500
        chosen = infer_body([1, 2, 3], outputs=[{"name": "y"}], id="mine")
        assert request(live.port, "POST", "/v2/models/model/infer", chosen)[0] == 200
        counted = live.metrics()
    assert counted['serinus_response_cache_requests_total{outcome="hit"}'] == 3
    assert counted['serinus_response_cache_requests_total{outcome="miss"}'] == 4
    assert counted["serinus_response_cache_bytes"] > 0
    assert counted['serinus_requests_total{code="200"}'] == 5
    assert counted["serinus_inflight_requests"] == 0


def test_it_is_off_unless_asked_for() -> None:
    assert from_environment({}).response_cache == 0
    config = from_environment({"SERINUS_RESPONSE_CACHE": "64Mi", "SERINUS_RESPONSE_CACHE_TTL": "30s"})
    assert (config.response_cache, config.response_cache_ttl) == (64 << 20, 30.0)
    engine = GateEngine()
    with Live(gated(engine)) as live:
        for _ in range(2):
            infer(live.port, [1, 2, 3])
        assert not any("response_cache" in name for name in live.metrics())
    assert len(engine.batches) == 2
