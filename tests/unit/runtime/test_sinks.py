"""Where the prediction log goes: files that rotate, an HTTP server that fails, stalls and comes back, and Kafka."""

from __future__ import annotations

import gzip
import json
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.config import Config, from_environment
from serinus_runtime.failures import FailureError
from serinus_runtime.predictionlog import Identity, PredictionLog
from serinus_runtime.sinks import Stopping
from serinus_runtime.sinks.files import FileSink
from serinus_runtime.sinks.http import HttpSink
from serinus_runtime.sinks.kafka import KafkaSink, parse, read_options
from serinus_runtime.sinks.opening import open_sink
from support.kafka import Broker, broker_running
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer
from unit.runtime.test_prediction_log import prediction

LINES = [b'{"n":%d}\n' % n for n in range(100)]


class Collector:
    """An HTTP server that answers with what `answers` says (200 when it is empty) and keeps what it took."""

    def __init__(self) -> None:
        self.answers: deque[int | str] = deque()
        self.lines: list[bytes] = []
        self.heads: list[dict[str, str]] = []
        self.release = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.heads.append({name.lower(): value for name, value in self.headers.items()})
                answer = collector.answers.popleft() if collector.answers else 200
                if answer == "stall":
                    collector.release.wait(WAIT)
                    self.close_connection = True
                    return
                if answer == "hang up":
                    self.close_connection = True
                    return
                if answer == "take and hang up":
                    collector.lines += gzip.decompress(body).splitlines(keepends=True)
                    self.close_connection = True
                    return
                assert isinstance(answer, int)
                if answer < 300:
                    collector.lines += gzip.decompress(body).splitlines(keepends=True)
                self.send_response(answer)
                if answer == 429:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/logs?source=a"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()
    while OPENED:
        OPENED.pop().close(1)


OPENED: list[HttpSink] = []


def http_sink(url: str, **settings: Any) -> HttpSink:
    OPENED.append(HttpSink(url, **{"draw": lambda _low, _high: 0.0, **settings}))
    return OPENED[-1]


def test_lines_arrive_once_gzipped_with_the_token_of_the_day(collector: Collector, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    sink = http_sink(collector.url, token_file=token)
    sink.write(LINES, Stopping())
    token.write_text("second")
    sink.write(LINES[:1], Stopping())
    sink.close(1)
    assert collector.lines == [*LINES, LINES[0]]
    assert (sink.written, sink.failed, sink.retries) == (101, 0, 0)
    assert [head["authorization"] for head in collector.heads] == ["Bearer first", "Bearer second"]
    assert collector.heads[0]["content-type"] == "application/x-ndjson"
    assert collector.heads[0]["content-encoding"] == "gzip"
    assert collector.heads[0]["x-serinus-batch"] != collector.heads[1]["x-serinus-batch"]


def test_what_may_pass_is_tried_again_and_nothing_is_lost(collector: Collector) -> None:
    collector.answers.extend([503, 429, "hang up", 500])
    sink = http_sink(collector.url)
    sink.write(LINES, Stopping())
    assert collector.lines == LINES
    assert (sink.written, sink.failed, sink.retries) == (100, 0, 3), "the hang-up of a kept connection is no failure"
    assert len({head["x-serinus-batch"] for head in collector.heads}) == 1


def test_a_batch_whose_answer_was_lost_comes_again_under_its_name(collector: Collector) -> None:
    collector.answers.append("take and hang up")
    sink = http_sink(collector.url)
    sink.write(LINES, Stopping())
    assert collector.lines == LINES * 2
    assert len({head["x-serinus-batch"] for head in collector.heads}) == 1


@pytest.mark.parametrize("status", [400, 401, 413, 301])
def test_what_will_not_pass_loses_the_batch_at_once(collector: Collector, status: int) -> None:
    collector.answers.append(status)
    sink = http_sink(collector.url)
    with pytest.raises(OSError, match=f"answered {status}"):
        sink.write(LINES, Stopping())
    assert (sink.written, sink.failed, len(collector.heads)) == (0, 100, 1)
    sink.write(LINES, Stopping())
    assert sink.written == 100


def test_a_server_that_stalls_or_is_gone_is_given_up_in_time(collector: Collector) -> None:
    collector.answers.extend(["stall"] * 10)
    sink = http_sink(collector.url, timeout=0.05, retry_seconds=0.3, draw=lambda _low, high: 0.05)
    with pytest.raises(OSError, match="timed out"):
        sink.write(LINES, Stopping())
    assert sink.failed == 100
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = http_sink(f"http://127.0.0.1:{taken.getsockname()[1]}/", retry_seconds=0.0, draw=lambda _low, _high: 0.1)
        with pytest.raises(OSError, match="refused"):
            gone.write(LINES, Stopping())


def test_waiting_ends_when_the_process_ends(collector: Collector) -> None:
    collector.answers.extend([503] * 1000)
    stopping = Stopping()
    sink = http_sink(collector.url, draw=lambda _low, _high: 30.0)

    def write() -> None:
        with pytest.raises(OSError, match="503"):
            sink.write(LINES, stopping)

    writing = threading.Thread(target=write)
    writing.start()
    _until(lambda: bool(sink.retries))
    stopping.ask()
    writing.join(WAIT)
    assert not writing.is_alive()
    assert sink.failed == 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_waits_grow_and_stay_within_bounds(draws: list[float]) -> None:
    """Full jitter: between nothing and a bound that doubles up to ten seconds."""
    asked: list[tuple[float, float]] = []
    clock = [0.0]
    left = deque(draws)

    def draw(low: float, high: float) -> float:
        asked.append((low, high))
        wait = low + (left.popleft() if left else 1.0) * (high - low)
        clock[0] += wait
        return 0.0

    sink = HttpSink("http://127.0.0.1:9/", now=lambda: clock[0], draw=draw)
    sink._try = lambda _body: ("no", 0.0)  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no"):
        sink.write(LINES, Stopping())
    assert all(low == 0.0 for low, _ in asked)
    assert [high for _, high in asked] == [min(10.0, 0.2 * 2.0**n) for n in range(1, len(asked) + 1)]
    assert clock[0] <= 70.0


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)


def test_a_server_that_is_away_costs_lines_and_never_a_request(collector: Collector) -> None:
    collector.answers.append("stall")
    sink = http_sink(collector.url, timeout=10 * WAIT)
    sink.gather_seconds = 0.0
    log = PredictionLog(sink, Identity(model="m"), lines=50)
    log.add(prediction())
    _until(lambda: bool(collector.heads))
    for _ in range(500):
        log.add(prediction())
    assert (sink.written, sink.failed, sink.retries) == (0, 0, 0), "nobody waited for the server: it still stalls"
    assert log.dropped == 450
    collector.release.set()
    log.close()
    assert (log.written, log.lost) == (51, 450)
    assert len(collector.lines) == 51


def test_predictions_of_a_server_arrive_by_http(collector: Collector) -> None:
    with Live(gated(GateEngine()), prediction_log=collector.url) as live:
        _, headers, _ = infer(live.port, [1, 2, 3])
    (line,) = map(json.loads, collector.lines)
    assert line["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "is not a server"),
        ("https://user:pw@host/", "tokens into a file"),
        ("http://example.com/", "would show the token"),
    ],
)
def test_addresses_that_are_no_good_say_what_to_write(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FailureError, match=message):
        open_sink(Config(prediction_log=url, prediction_log_token_file=str(tmp_path / "t")))


def test_files_are_put_aside_when_they_are_large(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    sink = FileSink(path, max_bytes=100, keep=2)
    every = [b"%09d\n" % n for n in range(60)]
    for at in range(0, 60, 4):
        sink.write(every[at : at + 4], Stopping())
    sink.close(1)
    assert sink.written == 60
    assert sorted(found.name for found in tmp_path.iterdir()) == ["p.jsonl", "p.jsonl.1", "p.jsonl.2"]
    assert all(found.stat().st_size <= 100 for found in tmp_path.iterdir())
    left = b"".join((tmp_path / name).read_bytes() for name in ("p.jsonl.2", "p.jsonl.1", "p.jsonl"))
    assert b"".join(every).endswith(left), "the newest lines, whole and in order"
    again = FileSink(path, max_bytes=100, keep=0)
    for at in range(0, 60, 4):
        again.write(every[at : at + 4], Stopping())
    assert path.stat().st_size <= 100
    again.close(1)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 120))
def test_rotation_never_splits_or_loses_what_is_kept(sizes: list[int], most: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "p"
        sink = FileSink(path, max_bytes=most, keep=60)
        every = [b"x" * size + b"%d\n" % n for n, size in enumerate(sizes)]
        for line in every:
            sink.write([line], Stopping())
        sink.close(1)
        files = sorted(Path(made).iterdir(), key=lambda found: -int(found.suffix[1:] or 0))
        assert b"".join(found.read_bytes() for found in files) == b"".join(every)
        assert all(found.stat().st_size <= most or found.read_bytes().count(b"\n") == 1 for found in files)


def test_settings_of_the_sinks() -> None:
    told = {
        "SERINUS_PREDICTION_LOG": "kafka://a:9092,b:9092/predictions?acks=all",
        "SERINUS_PREDICTION_LOG_SAMPLE": "0.1",
        "SERINUS_PREDICTION_LOG_MAX_BYTES": "64Mi",
        "SERINUS_PREDICTION_LOG_KEEP": "3",
    }
    config = from_environment(told)
    assert (config.prediction_log_sample, config.prediction_log_max_bytes, config.prediction_log_keep) == (
        0.1, 64 << 20, 3,
    )  # fmt: skip
    with pytest.raises(FailureError, match="write off, stdout, the absolute path of a file, https://"):
        from_environment({"SERINUS_PREDICTION_LOG": "ftp://host"})


def test_the_same_requests_are_sampled_everywhere(tmp_path: Path) -> None:
    """Two versions that answer the same requests keep the same lines, so that they can be joined."""
    kept = []
    for name in ("v1", "v2"):
        log = PredictionLog(FileSink(tmp_path / name), Identity(version=name), sample=0.25)
        for n in range(2000):
            log.add(prediction(request_id=b"id-%d" % n))
        log.close()
        kept.append([json.loads(line)["request_id"] for line in (tmp_path / name).read_text().splitlines()])
        assert (log.written, log.lost) == (len(kept[-1]), 0)
    assert kept[0] == kept[1]
    assert 400 < len(kept[0]) < 600


def test_addresses_of_topics() -> None:
    assert parse("kafka://a:9092,b:9092/predictions?acks=all&compression=zstd") == (
        "a:9092,b:9092",
        "predictions",
        {"acks": "all", "compression.type": "zstd"},
    )
    for url in ("kafka://a:9092", "kafka:///t", "kafka://a/t/u", "kafka://u:p@a/t", "kafka://a/t?color=red"):
        with pytest.raises(ValueError, match="kafka://"):
            parse(url)
    assert read_options("# tls\nsecurity.protocol = SSL\n\na=b=c\n") == {"security.protocol": "SSL", "a": "b=c"}
    with pytest.raises(ValueError, match="line 1"):
        read_options("nonsense")
    with pytest.raises(ValueError, match="librdkafka refuses"):
        KafkaSink("kafka://127.0.0.1:9/t?acks=many")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_running(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def test_predictions_reach_a_real_broker(broker: Broker) -> None:
    broker.create("predictions")
    log = PredictionLog(KafkaSink(f"kafka://{broker.address}/predictions?acks=all"), Identity(model="m"))
    for n in range(2000):
        log.add(prediction(request_id=b"id-%d" % n))
    # Also while nothing more is written.
    _until(lambda: log.written == 2000)
    log.close(WAIT)
    assert (log.written, log.lost) == (2000, 0)
    found = [json.loads(message)["request_id"] for message in broker.read("predictions", 2000)]
    assert found == [f"id-{n}" for n in range(2000)]


def test_a_server_writes_to_kafka(broker: Broker) -> None:
    broker.create("served")
    with Live(gated(GateEngine()), prediction_log=f"kafka://{broker.address}/served") as live:
        _, headers, _ = infer(live.port, [1, 2, 3])
    (message,) = broker.read("served", 1)
    assert json.loads(message)["request_id"] == headers["x-request-id"]


def test_a_broker_that_stands_still_costs_lines_and_never_a_request(broker: Broker, tmp_path: Path) -> None:
    options = tmp_path / "options"
    options.write_text("queue.buffering.max.messages=10\nlinger.ms=0\n")
    sink = KafkaSink(f"kafka://{broker.address}/standing?timeout=60000", options_file=options)
    log = PredictionLog(sink, Identity(model="m"), lines=50)
    with broker.standing():
        for _ in range(1000):
            log.add(prediction())
        _until(lambda: log.dropped > 0 and len(log) <= 50)
        assert log.written == 0
    log.close(WAIT)
    assert log.written + log.lost == 1000
    assert log.written >= 10
