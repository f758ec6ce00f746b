"""The smoke test against real runtimes: what is sent, measured and compared."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from serinus.api.smoke import SmokeTest
from serinus.errands import ErrandError
from serinus.errands.keys import derived, from_file
from serinus.errands.smoke import SmokeTester
from serinus.release.smoke import SmokeReport, SmokeTask, judge, told
from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime.support import Live, sum_model

OWNER = ("team", "fraud")
SAMPLE = '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]'


def scaled_model(directory: Path, factor: float) -> Path:
    """x FP32 [-1, 3] -> y FP32 [-1, 1], `factor` times the sum of the row."""
    directory.mkdir(parents=True)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axis"], ["s"], keepdims=1),
            helper.make_node("Mul", ["s", "factor"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(directory / "model.onnx"))
    return directory


@contextmanager
def serving(directory: Path, **settings: Any) -> Iterator[Live]:
    loaded = load_model(Config(model_dir=directory))
    with Live(loaded, model_dir=directory, model_name="m", **settings) as live:
        yield live


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Live]]:
    """Runtimes that serve a sum, almost the same sum, and ten times the sum."""
    folder = tmp_path_factory.mktemp("models")
    with ExitStack() as stack:
        yield {
            "live": stack.enter_context(serving(sum_model(folder / "sum"))),
            "same": stack.enter_context(serving(scaled_model(folder / "same", 1.0001))),
            "wrong": stack.enter_context(serving(scaled_model(folder / "wrong", 10.0))),
        }


def run(
    ports: dict[str, list[int]],
    test: SmokeTest,
    *,
    live: str | None = "live",
    maps: dict[str, str] | None = None,
    key: str | None = None,
    keyed: bool = False,
) -> SmokeReport:
    async def read(_namespace: str, _name: str, wanted: str) -> str | None:
        return (maps or {}).get(wanted)

    tester = SmokeTester(
        lambda _, revision: [f"http://127.0.0.1:{port}" for port in ports[revision]], read, lambda _: key
    )
    task = SmokeTask(test, "m", "candidate", live, "m", keyed)
    return asyncio.run(tester.run(OWNER, task))


def test_a_good_candidate(models: dict[str, Live]) -> None:
    test = SmokeTest(max_disagreement="1%")
    report = run({"candidate": [models["same"].port], "live": [models["live"].port]}, test)
    assert (report.source, report.requests, report.errors) == ("generated", 20, 0)
    assert report.parity is not None
    assert (report.parity.samples, report.parity.disagreeing) == (20, 0)
    assert report.p50 is not None
    assert report.p95 is not None
    assert 0 < report.p50 <= report.p95
    assert judge(test, report) is None
    assert "20 requests (generated), 0 failed" in told(report)


def test_other_answers_than_the_live_revisions(models: dict[str, Live]) -> None:
    ports = {"candidate": [models["wrong"].port], "live": [models["live"].port]}
    report = run(ports, SmokeTest())
    assert report.parity is not None
    # The first request is zeros, of which ten times the sum is the same.
    assert (report.parity.samples, report.parity.disagreeing) == (20, 19)
    assert report.parity.largest_difference is not None
    assert report.parity.largest_difference > 1
    assert report.differences[0].startswith("sample 2: output y[0] is ")
    assert judge(SmokeTest(), report) is None, "without a limit parity is reported only"
    assert "19 of 20 answers (95%) differ" in str(judge(SmokeTest(max_disagreement="5%"), report))


def test_expected_answers(models: dict[str, Live]) -> None:
    text = SAMPLE + ', "expected": {"y": [6.0]}}\n'
    ports = {"candidate": [models["wrong"].port]}
    report = run(ports, SmokeTest(samples=text), live=None)
    assert report.requests == 20
    assert report.expected is not None
    assert (report.expected.samples, report.expected.disagreeing) == (1, 1)
    assert judge(SmokeTest(), report) == ("1 of 1 answers are not as expected: sample 1: output y[0] is 60, expected 6")
    good = run({"candidate": [models["same"].port]}, SmokeTest(samples=text), live=None)
    assert judge(SmokeTest(), good) is None


def test_lines_of_the_prediction_log_from_a_config_map(models: dict[str, Live]) -> None:
    lines = [
        {"code": 200, "inputs": {"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}, "outputs": {"y": [[6.0], [15.0]]}},
        {"code": 200, "inputs": {"x": [["[redacted]", 2.0, 3.0]]}},
    ]
    text = "\n".join(map(json.dumps, lines))
    test = SmokeTest(samples_from={"name": "recorded", "key": "lines"}, requests=1)
    ports = {"candidate": [models["same"].port], "live": [models["live"].port]}
    report = run(ports, test, maps={"lines": text})
    assert report.source == "ConfigMap recorded"
    assert (report.requests, report.errors) == (1, 0)
    assert report.parity is not None
    assert (report.parity.samples, report.parity.disagreeing) == (1, 0)
    with pytest.raises(ErrandError, match="there is no key 'lines' in a ConfigMap recorded"):
        run(ports, test)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_gate_on_parity_needs_twenty_samples(recorded: bool, models: dict[str, Live]) -> None:
    ports = {"candidate": [models["same"].port], "live": [models["live"].port]}
    line = json.dumps({"inputs": {"x": [[1.0, 2.0, 3.0]]}})
    redacted = json.dumps({"inputs": {"x": [["[redacted]", 2.0, 3.0]]}})

    def tested(lines: list[str], *, live: str | None = "live", **more: Any) -> SmokeReport:
        text = "\n".join(lines)
        given = {"samples_from": {"name": "recorded", "key": "lines"}} if recorded else {"samples": text}
        return run(ports, SmokeTest(requests=1, **given, **more), live=live, maps={"lines": text})

    few = tested([line] * 19 + [redacted], max_disagreement="5%")
    where = "ConfigMap recorded" if recorded else "smokeTest.samples"
    assert few.requests == 0, "refused before the candidate is asked"
    assert str(judge(SmokeTest(), few)).startswith(
        f"smokeTest.maxDisagreement needs at least 20 samples, {where} has 19 without redacted values: write more"
    )
    for report, compared in (
        (tested([line] * 20, max_disagreement="5%"), 20),
        (tested([line] * 19), 19),  # No gate: told, of how many samples.
    ):
        assert report.unsuitable is None
        assert report.parity is not None
        assert report.parity.samples == compared
        assert f"{compared} of {compared} answers as the live revision's" in told(report)
    # Nobody to compare with: the first version is not kept from its users.
    assert tested([line], live=None, max_disagreement="5%").unsuitable is None


def test_twenty_are_generated_where_parity_is_a_gate(models: dict[str, Live]) -> None:
    ports = {"candidate": [models["same"].port], "live": [models["live"].port]}
    assert run(ports, SmokeTest(requests=3)).requests == 3
    report = run(ports, SmokeTest(requests=3, max_disagreement="5%"))
    assert report.requests == 20
    assert report.parity is not None
    assert report.parity.samples == 20


def test_every_pod_is_asked(models: dict[str, Live]) -> None:
    """A pod that answers wrongly does not hide behind one that does not."""
    ports = {"candidate": [models["same"].port, models["wrong"].port], "live": [models["live"].port]}
    report = run(ports, SmokeTest())
    assert report.parity is not None
    assert report.parity.disagreeing == 10


def test_a_model_that_refuses_what_is_sent(models: dict[str, Live]) -> None:
    text = SAMPLE.replace("FP32", "INT64") + "}"
    report = run({"candidate": [models["same"].port]}, SmokeTest(samples=text), live=None)
    assert report.errors == 20
    assert str(judge(SmokeTest(), report)).startswith("20 of 20 requests failed: 400: ")


def test_a_latency_limit(models: dict[str, Live]) -> None:
    test = SmokeTest(max_p95="1us")
    report = run({"candidate": [models["same"].port]}, test, live=None)
    assert str(judge(test, report)).endswith("allowed is 1us")


def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(ErrandError, match="cannot be reached from the operator"):
        run({"candidate": [unused_tcp_port]}, SmokeTest(), live=None)
    with pytest.raises(ErrandError, match="no pod of the candidate is ready"):
        run({"candidate": []}, SmokeTest(), live=None)


@pytest.mark.parametrize("status", [302, 401, 404, 503])
def test_a_pod_that_does_not_say_that_it_is_ready(status: int, models: dict[str, Live]) -> None:
    """Only 2xx says so, to everybody: a runtime that asks for keys answers for its health without one."""
    asked: list[str] = []

    class Pod(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", f"http://127.0.0.1:{models['same'].port}/v2/health/ready")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Pod) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        ports = {"candidate": [models["same"].port, server.server_port]}
        with pytest.raises(ErrandError, match=rf"is not ready: /v2/health/ready answers {status}"):
            run(ports, SmokeTest(), live=None)
        server.shutdown()
    assert asked == ["/v2/health/ready"]


def test_samples_that_cannot_be_used(models: dict[str, Live]) -> None:
    report = run({"candidate": [models["same"].port]}, SmokeTest(samples="{"), live=None)
    assert str(judge(SmokeTest(), report)).startswith("line 1 is not JSON")


def test_keys(tmp_path: Path) -> None:
    """The pods ask for a key: the operator shows the one that is derived for this ModelDeployment."""
    key = derived(b"the operator's secret", OWNER)
    keys = tmp_path / "keys"
    keys.write_text(f"serinus sha256:{hashlib.sha256(key.encode()).hexdigest()} scopes=infer,read\n")
    with serving(sum_model(tmp_path / "sum"), api_keys_file=keys) as live:
        shown = run({"candidate": [live.port]}, SmokeTest(), live=None, key=key, keyed=True)
        assert (shown.source, shown.errors) == ("generated", 0)
        hidden = run({"candidate": [live.port]}, SmokeTest(), live=None, keyed=True)
        assert "/v2/models/m answers 401" in str(hidden.unsuitable)


def test_derived_keys_are_what_openssl_makes(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"abc\n")
    wanted = "serinus-" + hmac.new(b"abc", b"team/fraud", "sha256").hexdigest()
    assert from_file(secret)(OWNER) == wanted
    assert from_file(secret)(("team", "other")) != wanted
    assert from_file(None)(OWNER) is None
    assert from_file(tmp_path / "missing")(OWNER) is None


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
