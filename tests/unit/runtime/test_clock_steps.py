"""The clock is set an hour forwards, or backwards, while a server is asked: nothing that is measured follows."""

from __future__ import annotations

import ast
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

import serinus_runtime
from serinus_runtime.ingress.ratelimit import Rate
from unit.runtime.ports import until
from unit.runtime.support import GateEngine, Live, gated, infer_body, request

_WALL = {
    "http/site.py": "the Date header",
    "ingress/tokenopening.py": "when a token expires is said in wall time",
    "jobs/callbacks.py": "the timestamp that is signed",
    "predictionlog.py": "the time of a line, as the offset of the monotonic clock at the start",
    "proxy/record.py": "the same",
    "statistics.py": "when the last inference was",
}
"""Who asks for the time of day, and why."""


def test_who_asks_for_the_time_of_day_has_a_reason() -> None:
    root = Path(serinus_runtime.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time":
                found.add(path.relative_to(root).as_posix())
    assert found == set(_WALL)


def _ask(live: Live, row: list[float], **headers: str) -> tuple[int, dict[str, str]]:
    status, answered, _ = request(live.port, "POST", "/v2/models/model/infer", infer_body(row), headers)
    return status, answered


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_an_hour_more_or_less(step: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    engine = GateEngine()
    settings: dict[str, Any] = {
        "prediction_log": str(log), "response_cache": 1 << 20, "response_cache_ttl": 600.0, "queue_timeout": 600.0,
        "async_mode": True, "async_ttl": 600.0, "rate_limit": Rate(1 / 36_000, 8), "stuck_after": 600.0,
        "request_timeout": 600.0,
    }  # fmt: skip
    with Live(gated(engine), **settings) as live:
        assert [_ask(live, [1, 2, 3])[0] for _ in range(2)] == [200, 200]
        job = request(live.port, "POST", "/v2/models/model/async", infer_body([7, 8, 9]))[1]["location"]
        until(lambda: request(live.port, "GET", job)[0] == 200)
        engine.gate.clear()
        waiting = request_in_thread(live, [4, 5, 6])
        assert engine.started.acquire(timeout=20)

        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + step)
        until(lambda: abs(_date(live) - real() - step) < 60)
        assert waiting.alive(), "no deadline has come nearer"
        assert live.server.state.alive(), "and no batch looks stuck"
        engine.gate.set()
        assert waiting.status() == 200
        assert _ask(live, [1, 2, 3], **{"X-Request-Timeout": "300"})[0] == 200
        metrics = live.metrics()
        assert metrics['serinus_response_cache_requests_total{outcome="hit"}'] == 2, "nothing that is kept has expired"
        assert request(live.port, "GET", job)[0] == 200
        while (answer := _ask(live, [1, 2, 3]))[0] == 200:
            pass
        assert answer[0] == 429
        assert live.metrics()['serinus_requests_total{code="200"}'] <= 8, (
            "an hour would have given no token, and gave none"
        )
    lines = [json.loads(line)["time"] for line in log.read_text().splitlines()]
    assert lines == sorted(lines)
    assert lines[-1] - lines[0] < 600, "the log's times are those of the start, and what has passed since"


def _date(live: Live) -> float:
    return parsedate_to_datetime(request(live.port, "GET", "/v2/health/live")[1]["date"]).timestamp()


class request_in_thread:  # noqa: N801 - reads as what it does
    """A request that waits for its answer."""

    def __init__(self, live: Live, row: list[float]) -> None:
        import threading

        self._found: list[int] = []
        self._thread = threading.Thread(target=lambda: self._found.append(_ask(live, row)[0]))
        self._thread.start()

    def alive(self) -> bool:
        """No answer yet."""
        return self._thread.is_alive()

    def status(self) -> int:
        """Its status, once it is there."""
        self._thread.join(20)
        return self._found[0]
