"""TorchServe as a child: closed to everybody else, replaced when it dies, gone when the server goes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serinus_runtime
from pytorch.conftest import Torch, TorchLive
from serinus_runtime.engine import registry, torchserve
from serinus_runtime.failures import FailureError, Reason
from support.eventually import eventually
from unit.runtime.support import infer, request

INFER = "/v2/models/model/infer"
RAW = "/predictions/model"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def scorer(torch: Torch) -> Iterator[TorchLive]:
    """A server of the handler that sums rows."""
    with torch.live("scorer", engine="torchserve", batch_max_size=8, model_version="v3") as server:
        yield server


def _members(group: int) -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.add(int(folder.name))
    return found


def _assert_gone(group: int) -> None:
    assert not _members(group)


def _ask(path: Path, method: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(path))
    try:
        connection.request(method, target, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_tensors_reach_the_handler_as_instances_and_come_back(scorer: TorchLive) -> None:
    status, headers, body = infer(scorer.port, [1, 2, 3], [4, 5, 6.5])
    assert status == 200
    assert body["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [6.0, 15.5]}]
    assert headers["x-model-version"] == "v3"
    config = json.loads(request(scorer.port, "GET", "/v2/models/model/config")[2])
    assert config["backend"] == "torchserve"
    assert config["parameters"]["runtime"]["string_value"] == "torchserve-0.12.0"


def test_clients_of_torchserve_find_their_paths(scorer: TorchLive) -> None:
    for path in (RAW, f"{RAW}/v3"):
        status, headers, body = request(scorer.port, "POST", path, b'{"instances": [[1, 2, 3]]}', JSON)
        assert (status, json.loads(body)) == (200, {"predictions": [[6.0]]})
        assert headers["x-model-version"] == "v3"
    assert request(scorer.port, "GET", "/ping")[::2] == (200, b'{"status":"Healthy"}')
    assert request(scorer.port, "GET", RAW)[0] == 405


def test_garbage_is_the_client_s_fault(scorer: TorchLive) -> None:
    status, _, body = request(scorer.port, "POST", RAW, b"garbage", JSON)
    assert (status, json.loads(body)["error"]) == (400, "the body is not JSON, as its content type says")
    for garbage, kind in ((b'{"nope": 1}', JSON), (b"\x00\xff", {"content-type": "image/png"}), (b"", {})):
        status, _, body = request(scorer.port, "POST", RAW, garbage, kind)
        assert (status, "handler failed" in json.loads(body)["error"]) == (400, True)
    assert request(scorer.port, "POST", INFER, b"garbage")[0] == 400
    assert infer(scorer.port, [1, 2, 3])[0] == 200


def test_a_handler_that_never_goes_well_is_not_the_client_s_fault(scorer: TorchLive) -> None:
    garbage = [request(scorer.port, "POST", RAW, b'{"nope": 1}', JSON)[0] for _ in range(51)]
    assert garbage[0] == 400
    assert garbage[-1] == 500
    assert request(scorer.port, "POST", RAW, b'{"instances": [[1, 2, 3]]}', JSON)[0] == 200
    assert request(scorer.port, "POST", RAW, b'{"nope": 1}', JSON)[0] == 400


def test_its_ports_are_closed_to_everybody_else(scorer: TorchLive) -> None:
    root = Path(f"/proc/{scorer.engine.pid}/cwd").resolve().parent
    assert root.stat().st_mode & 0o077 == 0
    assert not (root / "home" / "key_file.json").exists()
    for api, method, target in (
        ("inference", "POST", RAW),
        ("inference", "GET", "/ping"),
        ("management", "GET", "/models"),
        ("management", "POST", "/models?url=https://example.com/evil.mar"),
        ("management", "DELETE", "/models/model"),
        ("management", "PUT", "/models/model?min_worker=9"),
    ):
        status, body = _ask(root / f"{api}.sock", method, target)
        assert (status in (400, 405), api, method, b"predictions" in body) == (True, api, method, False)
        status, _ = _ask(root / f"{api}.sock", method, target, {"Authorization": "Bearer wrong"})
        assert status in (400, 405)
    for pid in _members(scorer.engine.pid):
        assert {address for address in _listening(pid) if address not in ("127.0.0.1",)} == set()


def _listening(pid: int) -> set[str]:
    """Addresses of the TCP sockets on which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for file in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{file}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                found.add(socket.inet_ntoa(raw[-4:][::-1]))
    return found


def test_every_door_of_the_configuration_is_closed(scorer: TorchLive) -> None:
    root = Path(f"/proc/{scorer.engine.pid}/cwd").resolve().parent
    told = dict(line.partition("=")[::2] for line in (root / "config.properties").read_text().splitlines())
    assert told["disable_token_authorization"] == "false"
    assert told["enable_model_api"] == "false"
    assert told["allowed_urls"] == f"file://{root}/store/.*"
    assert told["use_env_allowed_urls"] == told["enable_envvars_config"] == "false"
    assert told["install_py_dep_per_model"] == "false"
    assert told["grpc_inference_address"] == told["grpc_management_address"] == "127.0.0.1"
    assert told["inference_address"].startswith("unix:")


def test_its_counters_become_ours(scorer: TorchLive) -> None:
    before = scorer.metrics()["serinus_torchserve_requests_total"]
    assert infer(scorer.port, [1, 2, 3])[0] == 200

    def counted() -> None:
        metrics = scorer.metrics()
        assert metrics["serinus_torchserve_requests_total"] > before
        assert metrics['serinus_torchserve_responses_total{class="2xx"}'] > 0
        assert metrics["serinus_engine_up"] == 1

    eventually(counted)


def test_a_worker_that_dies_at_a_request_comes_back(scorer: TorchLive) -> None:
    java = scorer.engine.pid
    status, headers, _ = infer(scorer.port, [77, 0, 0])
    assert (status, headers.get("retry-after")) == (503, "1")
    eventually(lambda: _infers(scorer), 240)
    eventually(scorer.assert_ready)
    assert scorer.engine.pid == java


def _infers(server: TorchLive) -> None:
    assert infer(server.port, [1, 2, 3])[0] == 200


def test_killed_in_the_middle_of_load_it_is_replaced_and_everybody_is_answered(scorer: TorchLive) -> None:
    first = scorer.engine.pid
    stop = False
    statuses: list[int] = []

    def client(_: int) -> None:
        while not stop:
            statuses.append(infer(scorer.port, [1, 2, 3])[0])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        try:
            eventually(lambda: _at_least(statuses, 200, 20), interval=0.02)
            os.kill(first, signal.SIGKILL)
            eventually(lambda: _at_least(statuses, 503, 1), interval=0.02)
            eventually(scorer.assert_not_ready, interval=0.02)
            eventually(lambda: _infers(scorer), 240)
        finally:
            stop = True
        for each in clients:
            each.result(30)
    assert set(statuses) == {200, 503}
    eventually(scorer.assert_ready)
    assert scorer.engine.pid != first
    assert not _members(first)


def _at_least(statuses: list[int], status: int, count: int) -> None:
    assert statuses.count(status) >= count


def test_rows_that_are_requests_of_their_own_are_joined_by_torchserve(torch: Torch) -> None:
    with torch.live("rows", engine="torchserve", batch_max_size=4, batch_max_delay=0.05) as server:
        group, root = server.engine.pid, Path(f"/proc/{server.engine.pid}/cwd").resolve().parent
        status, _, body = infer(server.port, *[[n, 0, 0] for n in range(4)])
        assert status == 200
        outputs = {each["name"]: each["data"] for each in body["outputs"]}
        assert outputs["total"] == [0.0, 1.0, 2.0, 3.0]
        assert outputs["together"] == [4, 4, 4, 4]
        assert len(_members(group)) >= 2
    _assert_gone(group)
    assert not root.exists()


@pytest.mark.parametrize("engine", ["torch", "torchserve"])
def test_bytes_go_and_come_as_they_are_even_where_they_look_like_json(torch: Torch, engine: str) -> None:
    rows = np.stack([np.frombuffer(b"123412341234", np.float32), np.array([np.nan, np.inf, -0.0], np.float32)])
    made = registry.open_engine(torch.config("echo", engine=engine, allow_python=True, batch_max_size=2))
    try:
        (found,) = made.run({"x": rows}, ["y"])
    finally:
        made.close()
    assert found.tobytes() == rows.tobytes()


def test_handlers_of_torchserve_s_own_classes_run(torch: Torch) -> None:
    engine = torchserve.open_engine(torch.config("based", engine="torchserve"))
    group = engine.pid
    try:
        signature = engine.signature
        (found,) = engine.run({"x": np.array([[1, 2, 3]], np.float32)}, [signature.outputs[0].name])
    finally:
        engine.close()
    assert found.tolist() == [[6.0]]
    assert group is not None
    _assert_gone(group)


def test_nothing_is_left_when_the_server_is_killed(torch: Torch) -> None:
    config = torch.config("scorer")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(serinus_runtime.__file__).parents[1]),
        "SERINUS_ENGINE": "torchserve",
        "SERINUS_HOST": "127.0.0.1",
        "SERINUS_HTTP_PORT": "0",
        "SERINUS_METRICS_PORT": "0",
        "SERINUS_MODEL_DIR": str(config.model_dir),
        "SERINUS_TORCH_PYTHON": config.torch_python,
        "SERINUS_TORCHSERVE_HOME": str(config.torchserve_home),
        "SERINUS_JAVA": config.java,
    }
    command = [sys.executable, "-m", "serinus_runtime", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                told = json.loads(line)
                if told["msg"] == "ready":
                    break
            (group,) = {
                int(folder.name)
                for folder in Path("/proc").iterdir()
                if folder.name.isdigit() and _parent(folder) == process.pid
            }
            assert len(_members(group)) >= 2
        finally:
            process.kill()
    eventually(lambda: _assert_gone(group))


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("name", "settings", "reason", "words"),
    [
        ("scorer", {"engine": "auto"}, Reason.MODEL_LOAD_FAILED, "SERINUS_ENGINE=torchserve"),
        ("scorer", {"torchserve_home": Path("/nowhere")}, Reason.INVALID_CONFIG, "torch flavour"),
        ("scorer", {"java": "/bin/false"}, Reason.MODEL_LOAD_FAILED, "it ended with 1"),
        ("undeclared_mar", {}, Reason.MODEL_LOAD_FAILED, "no names or shapes"),
        ("broken_mar", {}, Reason.MODEL_LOAD_FAILED, "its worker ended while it loaded the model"),
    ],
)
def test_what_cannot_be_served_is_told(
    torch: Torch, name: str, settings: dict[str, Any], reason: Reason, words: str
) -> None:
    with pytest.raises(FailureError, match=words) as failure:
        torchserve.open_engine(torch.config(name, **{"engine": "torchserve", **settings}))
    assert failure.value.reason is reason
