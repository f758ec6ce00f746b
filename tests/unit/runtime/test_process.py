"""The command as the kubelet runs it: exit codes, termination messages, signals."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import serinus_runtime
from unit.runtime import support
from unit.runtime.ports import until
from unit.runtime.support import WAIT, Reader, connect, infer, infer_body, post, request

_ROOT = Path(serinus_runtime.__file__).parent.parent


def _environment(settings: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERINUS_")}
    more = {
        "PYTHONPATH": str(_ROOT),
        "SERINUS_HOST": "127.0.0.1",
        "SERINUS_HTTP_PORT": "0",
        "SERINUS_METRICS_PORT": "0",
        "SERINUS_GRPC_PORT": "0",
    }
    return {**kept, **more, **settings}


def _run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serinus_runtime", *arguments],
        env=_environment(settings), capture_output=True, text=True, timeout=WAIT, check=False,
    )  # fmt: skip


class Served:
    """A `serve` process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, object]] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["msg"] == "ready":
                break
        self.port = int(str(self.log[0]["http_port"]))
        self.metrics_port = int(str(self.log[0]["metrics_port"]))
        self._rest = threading.Thread(target=lambda: self.log.extend(map(json.loads, process.stderr or ())))
        self._rest.start()

    def end(self) -> int:
        """Waits for the end; the exit code."""
        code = self.process.wait(WAIT)
        self._rest.join(WAIT)
        return code


@contextmanager
def _serving(directory: Path, **settings: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "serinus_runtime", "serve", "--model-dir", str(directory)]
    with subprocess.Popen(command, env=_environment(settings), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("case", "code", "reason"),
    [
        ("digest", 65, "DigestMismatch"),
        ("garbage", 66, "ModelLoadFailed"),
        ("absent", 66, "ModelLoadFailed"),
        ("warmup", 67, "WarmupFailed"),
        ("config", 78, "InvalidConfig"),
        ("fetch", 69, "FetchFailed"),
        ("port", 78, "InvalidConfig"),
    ],
)
def test_failures_are_told_to_the_operator(tmp_path: Path, sum_dir: Path, case: str, code: int, reason: str) -> None:
    log = tmp_path / "termination-log"
    log.write_text("x" * 10_000)
    settings = {"SERINUS_TERMINATION_LOG": str(log), "SERINUS_MODEL_DIR": str(sum_dir)}
    command = "serve"
    if case == "digest":
        settings["SERINUS_MODEL_DIGEST"] = "sha256:" + "0" * 64
    elif case == "garbage":
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "model.onnx").write_bytes(b"garbage")
        settings["SERINUS_MODEL_DIR"] = str(tmp_path / "m")
    elif case == "absent":
        settings["SERINUS_MODEL_DIR"] = str(tmp_path / "none")
    elif case == "warmup":
        settings["SERINUS_MODEL_DIR"] = str(support.failing_model(tmp_path / "m"))
    elif case == "config":
        settings["SERINUS_QUEUE_TIMEOUT"] = "soon"
    elif case == "port":
        settings["SERINUS_HOST"] = "192.0.2.1"
    else:
        command = "fetch"
        settings |= {
            "SERINUS_MODEL_URI": str((tmp_path / "gone").as_uri()),
            "SERINUS_MODEL_DIR": str(tmp_path / "a" / "m"),
        }
    done = _run(command, **settings)
    assert done.returncode == code, done.stderr
    message = json.loads(log.read_text())
    assert message["reason"] == reason
    assert json.loads(done.stderr.splitlines()[-1]) == message
    assert "Traceback" not in done.stderr


def test_a_termination_message_fits_and_may_be_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    value = "é" * 20_000
    assert _run("serve", SERINUS_TERMINATION_LOG=str(log), SERINUS_MODEL_NAME=value).returncode == 78
    assert len(log.read_bytes()) <= 4096
    assert json.loads(log.read_bytes())["reason"] == "InvalidConfig"
    assert _run("serve", SERINUS_TERMINATION_LOG=str(tmp_path / "no" / "log"), SERINUS_MODEL_NAME="/").returncode == 78


def test_digest_command(sum_dir: Path, tmp_path: Path) -> None:
    shown = _run("digest", str(sum_dir))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", shown.stdout)
    assert _run("digest", str(sum_dir), "--manifest").stdout.endswith("  model.onnx\n")
    assert _run("digest", str(tmp_path / "none")).returncode == 78


def test_fetch_then_serve(sum_dir: Path, tmp_path: Path) -> None:
    pinned = _run("digest", str(sum_dir)).stdout.strip()
    settings = {"SERINUS_MODEL_DIR": str(tmp_path / "model"), "SERINUS_MODEL_DIGEST": pinned}
    fetched = _run("fetch", SERINUS_MODEL_URI=sum_dir.as_uri(), **settings)
    assert (fetched.returncode, fetched.stdout.strip()) == (0, pinned)
    with _serving(tmp_path / "model", **settings, SERINUS_MODEL_VERSION="3", SERINUS_REVISION="abc") as served:
        _, headers, answer = infer(served.port, [1, 2, 3])
        assert answer["outputs"][0]["data"] == [6.0]
        assert (headers["x-model-digest"], headers["x-model-version"], headers["x-serinus-revision"]) == (
            pinned,
            "3",
            "abc",
        )
        served.process.send_signal(signal.SIGINT)
        assert served.end() == 0


def test_nothing_is_reported_home_or_written_there(sum_dir: Path, tmp_path: Path) -> None:
    """ONNX Runtime's wheels send telemetry unless they are told not to before they are loaded."""
    places = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    with _serving(sum_dir, **places) as served:
        assert infer(served.port, [1, 2, 3])[0] == 200
        served.process.send_signal(signal.SIGINT)
        assert served.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_sigterm_under_load_loses_nothing(sum_dir: Path) -> None:
    """Clients go on, new connections and all, until they are refused: whoever was let in is answered."""
    lost: list[str] = []
    answered = [0] * 8

    def client(number: int, port: int, keep: bool) -> None:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                while True:
                    connection.request("POST", "/v2/models/model/infer", infer_body([number, 1, 1]))
                    answer = connection.getresponse()
                    if answer.status != 200 or json.loads(answer.read())["outputs"][0]["data"] != [number + 2.0]:
                        lost.append(f"{answer.status}")
                    answered[number] += 1
                    if not keep or answer.getheader("connection") == "close":
                        break
            except OSError as error:
                lost.append(repr(error))
            finally:
                connection.close()

    with _serving(sum_dir, SERINUS_DRAIN_DELAY="4s") as served:
        threads = [threading.Thread(target=client, args=(n, served.port, n % 2 == 0)) for n in range(8)]
        for thread in threads:
            thread.start()
        while min(answered) < 20:
            time.sleep(0.001)
        told = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        until(lambda: request(served.metrics_port, "GET", "/readyz")[0] == 503)
        before = sum(answered)
        assert request(served.port, "GET", "/v2/health/live")[0] == 200
        assert request(served.port, "GET", "/v2/health/ready")[0] == 503
        assert served.end() == 0
        for thread in threads:
            thread.join(WAIT)
        assert time.monotonic() - told >= 4
    assert lost == []
    assert sum(answered) > before


def test_a_second_signal_ends_it_at_once(sum_dir: Path) -> None:
    with _serving(sum_dir, SERINUS_DRAIN_DELAY="1h") as served, connect(served.port) as sock, Reader(sock) as reader:
        served.process.send_signal(signal.SIGTERM)
        while request(served.port, "GET", "/v2/health/ready")[0] != 503:
            pass
        sock.sendall(post(infer_body([1, 2, 3])))
        status, headers, _ = reader.answer()
        assert (status, headers["connection"]) == (200, "close")
        served.process.send_signal(signal.SIGTERM)
        assert served.end() == 0
