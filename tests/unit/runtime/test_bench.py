"""The benchmark's own parts: the load that it makes, the models, the table. No figures are judged here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.runtime import catalog, load, models, servers
from bench.runtime.__main__ import table
from serinus_runtime.engine import onnx as engine
from unit.runtime.support import GateEngine, Live, gated, infer_body


def test_an_open_loop_sends_what_was_planned_and_counts_what_failed() -> None:
    good, bad = infer_body([1, 2, 3]), infer_body([666, 0, 0])
    payloads = load.requests("/v2/models/model/infer", [good, good, good, bad])
    with Live(gated(GateEngine())) as live:
        outcome = load.open_loop(live.port, payloads, rate=200.0, seconds=0.5, core=None)
        counted = live.metrics()
    assert (outcome.answered, outcome.failed) == (75, 25)
    assert (counted['serinus_requests_total{code="200"}'], counted['serinus_requests_total{code="500"}']) == (75, 25)
    assert 0 < outcome.p50 <= outcome.p99
    assert outcome.rate == 150.0


def test_latency_counts_from_when_a_request_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_GIVE_UP", 0.25)
    stuck = GateEngine()
    with Live(gated(stuck)) as live:
        stuck.gate.clear()
        payloads = load.requests("/v2/models/model/infer", [infer_body([1, 2, 3])])
        try:
            outcome = load.open_loop(live.port, payloads, rate=50.0, seconds=0.2, core=None)
        finally:
            stuck.gate.set()
    assert (outcome.answered, outcome.failed) == (0, 10)
    assert outcome.p99 >= 250.0


@pytest.mark.parametrize(("name", "width"), [("trees", 1), ("mlp", 2)])
def test_models_are_batched_and_their_rows_differ(tmp_path: Path, name: str, width: int) -> None:
    path = models.make(name, tmp_path)
    assert models.make(name, tmp_path) == path
    onnx.checker.check_model(str(path))
    loaded = engine.load(tmp_path)
    assert loaded.signature.batched
    (y,) = loaded.run({"x": np.array(models.rows(8), dtype=np.float32)}, ["y"])
    assert y.shape == (8, width)
    assert len(np.unique(y[:, 0])) == 8


def test_every_peer_can_be_started_or_says_why_not() -> None:
    assert len({peer.name for peer in catalog.PEERS}) == len(catalog.PEERS)
    for peer in catalog.PEERS:
        if peer.absent:
            with pytest.raises(servers.UnavailableError, match=r"torch|image"):
                servers.python_of(peer)
        elif peer.file:
            assert (servers.SCRIPTS / peer.file).is_file()


def test_the_table_is_ordered_and_aligned() -> None:
    figures = {"rps64": 10.0, "cpu64": 20.0, "failed64": 1.0}
    text = table(10.0, {"slow": figures, "fast": {**figures, "rps64": 20.0}, "gone": {}})
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["fast", "slow", "gone"]
    assert len({len(line) for line in lines}) == 1
    assert "0.500" in lines[1]
