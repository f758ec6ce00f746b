"""How many rows a batch may have where nobody said."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.config import from_environment
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import EngineError, Signature, TensorSpec
from serinus_runtime.failures import FailureError
from serinus_runtime.growth import MOST, affordable, grown
from serinus_runtime.warmup import measure
from unit.runtime import support
from unit.runtime.test_costs import Core, Steps

FIXED, ROW = 0.004, 0.0001


def _linear(fixed: float, row: float) -> dict[int, float]:
    return {size: fixed + size * row for size in (1, 2, 4, 8, 16, 32)}


def _limit(fixed: float, row: float, size: int = 32) -> int:
    return max(grown(_linear(fixed, row), size, lambda rows: fixed + rows * row))


@pytest.mark.parametrize(
    ("fixed", "row", "limit"),
    [
        # What a row costs alone decides: the weights that every batch reads are what larger ones share.
        (0.0, 0.001, 32),
        (0.0001, 0.0001, 32),
        (FIXED, ROW, 128),
        (0.02, 0.0000001, MOST),
        # Everything else about a request costs more than such a model.
        (0.0005, 0.0000001, 32),
        # Whoever is in such a batch would wait for too long.
        (0.2, 0.001, 32),
    ],
)
def test_batches_grow_while_rows_become_much_cheaper(fixed: float, row: float, limit: int) -> None:
    assert _limit(fixed, row) == limit


@given(st.floats(0, 0.1), st.floats(0, 0.01))
def test_no_size_is_chosen_that_is_not_worth_it(fixed: float, row: float) -> None:
    limit = _limit(fixed, row)
    assert 32 <= limit <= MOST
    if limit > 32:
        assert (fixed + limit * row) / limit <= 0.85 * (fixed + limit / 2 * row) / (limit / 2) + 1e-12
        assert fixed + limit * row <= 0.05


def test_sizes_that_cannot_be_end_it() -> None:
    assert max(grown(_linear(FIXED, 0.0), 32, lambda rows: None if rows > 64 else FIXED)) == 64
    assert grown({1: 0.1}, 32, lambda _: 0.0) == {1: 0.1}, "a model that was not measured as far as that"


def test_inputs_that_are_large_are_nobodys_to_multiply() -> None:
    def signature(width: int) -> Signature:
        return Signature((TensorSpec("x", "FP32", (-1, width)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)

    assert affordable(signature(30), MOST)
    assert not affordable(signature(3 * 224 * 224), 64)


class Dense(Steps):
    """Takes `FIXED` and `ROW` for each row, and refuses more than `most` rows."""

    def __init__(self, core: Core, most: int = 10_000) -> None:
        super().__init__(core, (0.0, 0.0))
        self.most = most
        self.sizes: set[int] = set()

    def run(self, inputs: dict[str, Array], _outputs: object) -> list[Array]:  # type: ignore[override]
        rows = len(inputs["x"])
        if rows > self.most:
            raise EngineError("too many")
        self.sizes.add(rows)
        self.core.work(FIXED + rows * ROW, 0.0)
        return [np.zeros((rows, 1), np.float32)]


@pytest.mark.parametrize(("grows", "most", "limit"), [(True, 10_000, 128), (False, 10_000, 32), (True, 64, 64)])
def test_warm_up_measures_further_where_it_may(grows: bool, most: int, limit: int) -> None:
    core = Core()
    engine = Dense(core, most)
    found = measure(engine, engine.signature, 32, usage=core.usage, clock=lambda: core.now, grows=grows)
    assert max(found) == limit
    assert max(engine.sizes) <= (min(most, 256) if grows else 32)


def test_it_is_the_default_and_a_number_ends_it() -> None:
    def read(**environ: str) -> tuple[int | None, int]:
        config = from_environment({f"SERINUS_{name}": text for name, text in environ.items()})
        return config.batch_max_size, config.usual_batch

    assert read() == read(BATCH_MAX_SIZE="auto") == (None, 32)
    assert read(BATCH_MAX_SIZE="16") == (16, 16)
    with pytest.raises(FailureError, match=r"BATCH_MAX_SIZE: .many. .* a whole number from 1 to 65536, or auto"):
        read(BATCH_MAX_SIZE="many")


def test_a_server_batches_as_many_as_were_found_and_says_so() -> None:
    engine = support.GateEngine()
    engine.gate.set()
    loaded = support.gated(engine)
    with support.Live(loaded) as live:
        assert support.request(live.port, "GET", "/v2/models/model/config")[2].count(b'"max_batch_size":32') == 1
    with support.Live(msgspec.structs.replace(loaded, max_batch=128)) as live:
        assert support.request(live.port, "GET", "/v2/models/model/config")[2].count(b'"max_batch_size":128') == 1
