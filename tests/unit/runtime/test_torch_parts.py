"""What the torch engines are made of, without torch: archives, declared signatures, bodies, frames, supervision."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serinus_runtime.config import Config
from serinus_runtime.digest import compute_digest, verify
from serinus_runtime.engine import CodeError, EngineError, EngineTimeoutError, EngineUnavailableError, declared, mar
from serinus_runtime.engine import torchserve_settings as settings
from serinus_runtime.engine.memory import resident
from serinus_runtime.engine.scratch import Scratch
from serinus_runtime.engine.supervisor import Supervisor, end, spawn
from serinus_runtime.engine.torchserve_client import Reply, refuse
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.loading import load_model
from serinus_runtime.torchworker import bodies, frames
from support.eventually import eventually

MANIFEST: dict[str, Any] = {"model": {"modelName": "m", "handler": "handler.py", "serializedFile": "model.pt"}}


def _mar(path: Path, files: dict[str, bytes], manifest: object = MANIFEST) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if manifest is not None:
            archive.writestr(mar.MANIFEST, json.dumps(manifest))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_an_archive_is_unpacked_with_its_manifest(tmp_path: Path) -> None:
    found = mar.unpack(_mar(tmp_path / "m.mar", {"handler.py": b"pass", "model.pt": b"w"}), tmp_path / "x", 1000)
    assert (found.handler, (found.directory / "model.pt").read_bytes()) == ("handler.py", b"w")


def test_files_outside_the_directory_are_refused(tmp_path: Path) -> None:
    for name in ("../evil.py", "/tmp/evil.py", "a/../../evil.py", "a\\..\\evil.py"):
        target = tmp_path / f"{abs(hash(name))}"
        with pytest.raises(FailureError, match="outside") as failure:
            mar.unpack(_mar(tmp_path / "m.mar", {name: b"x"}), target / "model", 1000)
        assert failure.value.reason is Reason.MODEL_LOAD_FAILED
    assert not list(tmp_path.rglob("evil.py"))


def test_a_bomb_is_stopped_while_it_is_unpacked(tmp_path: Path) -> None:
    bomb = _mar(tmp_path / "m.mar", {"model.pt": bytes(10_000_000)})
    assert bomb.stat().st_size < 20_000
    with pytest.raises(FailureError, match="more than 1000000 bytes"):
        mar.unpack(bomb, tmp_path / "x", 1_000_000)
    assert sum(file.stat().st_size for file in (tmp_path / "x").rglob("*") if file.is_file()) <= 1_000_000


def test_links_are_refused(tmp_path: Path) -> None:
    path = _mar(tmp_path / "m.mar", {})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("model.pt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(FailureError, match="link"):
        mar.unpack(path, tmp_path / "x", 1000)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "torch-model-archiver"),
        ([], "no JSON object"),
        ({"model": {}}, "no model.handler"),
        ({"model": {"handler": "h.py", "serializedFile": "../../etc/passwd"}}, "a file in the archive"),
        ({"model": {"handler": "h.py", "configFile": 3}}, "a file in the archive"),
    ],
)
def test_manifests_that_mislead_are_refused(tmp_path: Path, manifest: object, words: str) -> None:
    with pytest.raises(FailureError, match=words):
        mar.unpack(_mar(tmp_path / "m.mar", {}, manifest), tmp_path / "x", 1000)


def test_there_must_be_one_archive(tmp_path: Path) -> None:
    for count in (0, 2):
        for number in range(count):
            (tmp_path / f"{number}.mar").touch()
        with pytest.raises(FailureError, match=f"holds {count} files"):
            mar.only(tmp_path)


def test_directories_of_killed_servers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    living = Scratch(tmp_path)
    code = "import os, sys; from pathlib import Path; from serinus_runtime.engine.scratch import Scratch; "
    code += "made = Scratch(Path(sys.argv[1])); (made.path / 'model').touch(); os._exit(9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    other = Scratch(tmp_path)
    assert set(tmp_path.iterdir()) == {living.path, other.path}
    assert living.path.stat().st_mode & 0o077 == 0
    for scratch in (living, other):
        scratch.remove()
    assert not list(tmp_path.iterdir())


def _declare(directory: Path, **told: object) -> declared.Signature:
    (directory / "model.json").write_text(json.dumps(told))
    found, _ = declared.read(directory)
    assert found is not None
    return found


def _tensor(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape}


def test_rows_are_joined_only_where_everything_has_open_rows(tmp_path: Path) -> None:
    assert _declare(tmp_path, signature={"inputs": [_tensor("x")], "outputs": [_tensor("y")]}).batched
    fixed = {"inputs": [_tensor("x", shape=(1, 2))], "outputs": [_tensor("y")]}
    assert not _declare(tmp_path, signature=fixed).batched


@pytest.mark.parametrize(
    "told",
    [
        {"signature": {"inputs": [_tensor("x", "FLOAT")], "outputs": [_tensor("y")]}},
        {"signature": {"inputs": [_tensor("x")], "outputs": []}},
        {"signature": {"inputs": [_tensor("x"), _tensor("x")], "outputs": [_tensor("y")]}},
        {"signature": {"inputs": [_tensor("x", shape=(-2,))], "outputs": [_tensor("y")]}},
        {"signature": {"inputs": "x", "outputs": "y"}},
        {"handler": {"body": "xml"}},
        {"handler": {"bodies": "row"}},
    ],
)
def test_declarations_that_cannot_be_meant_are_refused_with_an_example(tmp_path: Path, told: dict[str, object]) -> None:
    with pytest.raises(FailureError, match=r'write such as {"signature"'):
        _declare(tmp_path, **told)


def test_outputs_are_held_to_what_is_declared(tmp_path: Path) -> None:
    signature = _declare(tmp_path, signature={"inputs": [_tensor("x")], "outputs": [_tensor("y")]})
    good = np.zeros((3, 2), np.float32)
    assert declared.check([good], ["y"], signature)[0] is good
    for bad in (np.zeros((3, 2)), np.zeros((3, 3), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(EngineError, match="'y' is declared"):
            declared.check([bad], ["y"], signature)


_arrays = st.one_of(
    hnp.arrays(
        st.sampled_from([dtype for name, dtype in frames.DTYPES.items() if name != "BYTES"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    hnp.arrays(np.dtype(object), hnp.array_shapes(max_dims=2, max_side=3), elements=st.text(max_size=5)),
)


@given(st.dictionaries(st.text(max_size=4), _arrays, max_size=3), st.text(max_size=5))
def test_frames_carry_every_datatype_and_shape(arrays: dict[str, Any], word: str) -> None:
    left, right = socket.socketpair()
    with left, right:
        sender = threading.Thread(target=frames.send, args=(left, {"word": word}, arrays))
        sender.start()
        header, found = frames.receive(right)
        sender.join()
    assert header == {"word": word}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")


def test_frames_that_are_too_long_or_cut_off_are_errors() -> None:
    left, right = socket.socketpair()
    with left, right:
        frames.send(left, {}, {"x": np.zeros(1000, np.float32)})
        with pytest.raises(ValueError, match="1000 are allowed"):
            frames.receive(right, 1000)
    left, right = socket.socketpair()
    with right:
        with left:
            left.sendall(b"\x10\0\0\0\0\0\0\0half")
        with pytest.raises(frames.ClosedError):
            frames.receive(right)


Y = ("y", "FP32", (-1, 2))


@pytest.mark.parametrize("style", ["instances", "row"])
def test_rows_become_the_bodies_that_handlers_know_and_come_back(style: str) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    sent = bodies.bodies(style, {"x": x}, 3)
    assert sent == ([{"instances": x.tolist()}] if style == "instances" else x.tolist())
    answers = [{"predictions": x.tolist()}] if style == "instances" else x.tolist()
    for back in (answers, [json.dumps(answer) for answer in answers]):
        (found,) = bodies.arrays(style, back, [Y], 3)
        assert np.array_equal(found, x)


def test_bytes_go_and_come_as_they_are() -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    sent = bodies.bodies("binary", {"x": x}, 3)
    (found,) = bodies.arrays("binary", [bytearray(body) for body in sent], [Y], 3)
    assert np.array_equal(found, x)


def test_several_inputs_and_outputs_go_by_name() -> None:
    inputs = {"a": np.array([1, 2]), "b": np.array(["x", "y"], object)}
    assert bodies.bodies("row", inputs, 2) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    outputs = [("score", "FP32", (-1, 1)), ("word", "BYTES", (-1,))]
    score, word = bodies.arrays("row", [{"word": "u", "score": 1}, {"word": "v", "score": 2}], outputs, 2)
    assert (score.tolist(), word.tolist()) == ([[1.0], [2.0]], ["u", "v"])


@pytest.mark.parametrize(
    ("style", "answers", "words"),
    [
        ("instances", [{"predictions": [[1, 2]]}], "1 came back"),
        ("instances", [{"message": "no"}], "no member 'y'"),
        ("instances", ["<html>"], "not JSON"),
        ("row", [[1, 2], [1, 2]], "2 answers came back"),
        ("row", [[1, 2], [1], [1, 2]], "one shape for every row"),
        ("row", ["a", "b", "c"], "not JSON"),
        ("binary", [b"123", b"1234", b"1234"], "not FP32"),
    ],
)
def test_answers_that_do_not_fit_are_told(style: str, answers: list[Any], words: str) -> None:
    with pytest.raises(bodies.AnswerError, match=words):
        bodies.arrays(style, answers, [Y], 3)


def _sleeper(lines: list[str]) -> subprocess.Popen[bytes]:
    return spawn(["/bin/sh", "-c", "echo up; sleep 1000 & exec sleep 1000"], os.environ, Path("/"), lines.append)


def _group(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("style", "batching"), [("instances", ("1", "1")), ("row", ("16", "3")), ("binary", ("16", "3"))]
)
def test_torchserve_is_told_our_limits(style: str, batching: tuple[str, str]) -> None:
    config = Config(
        model_name="fraud", batch_max_size=16, batch_max_delay=0.0025, queue_max_length=77, engine_timeout=1.5
    )
    lines = settings.properties(config, settings.Places(Path("/p")), "2.0", style).splitlines()
    told = dict(line.partition("=")[::2] for line in lines)
    model = json.loads(told["models"])["fraud"]["2.0"]
    assert (str(model["batchSize"]), str(model["maxBatchDelay"])) == batching
    assert (told["job_queue_size"], model["responseTimeout"], model["maxWorkers"]) == ("77", 2, 1)


def test_torchserve_sees_nothing_of_our_environment() -> None:
    ours = {"PATH": "/bin", "SERINUS_API_KEYS": "k", "AWS_SECRET_ACCESS_KEY": "s", "LD_PRELOAD": "x"}
    found = settings.environment(Config(), settings.Places(Path("/p")), ours)
    assert found["PATH"] == "/bin"
    assert not {"SERINUS_API_KEYS", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"} & found.keys()


@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (503, "InternalServerException", "Prediction failed", CodeError),
        (503, "InternalServerException", "Invalid model predict output", EngineError),
        (500, "InternalServerException", "Worker died.", EngineUnavailableError),
        (503, "InternalServerException", "Worker died.", EngineUnavailableError),
        (503, "ServiceUnavailableException", "Model has no worker to serve inference request", EngineUnavailableError),
        (500, "InternalServerException", "Worker did not respond in time", EngineTimeoutError),
        (507, "InternalServerException", "Out of resources", EngineError),
    ],
)
def test_what_torchserve_says_becomes_what_we_say(
    status: int, kind: str, message: str, error: type[EngineError]
) -> None:
    body = json.dumps({"code": status, "type": kind, "message": message}).encode()
    assert type(refuse(Reply(status, "application/json", body))) is error


def _assert(value: object) -> None:
    assert value


def test_a_child_that_dies_is_replaced_with_its_whole_group() -> None:
    lines: list[str] = []
    supervisor = Supervisor(
        "test", lambda: _sleeper(lines), lambda _: eventually(lambda: _assert(lines), interval=0.01)
    )
    supervisor.start()
    try:
        assert supervisor.up
        first = supervisor.pid
        assert first is not None
        eventually(lambda: _assert(len(_group(first)) == 2), interval=0.01)
        os.kill(first, 9)
        eventually(lambda: _assert(supervisor.up and supervisor.starts == 2), interval=0.01)
        assert supervisor.pid != first
        assert not _group(first)
    finally:
        supervisor.stop()
    assert supervisor.pid is not None
    assert not _group(supervisor.pid)
    assert not supervisor.alive()


def test_a_child_that_takes_too_much_memory_is_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys, time; from pathlib import Path; seen = Path(sys.argv[1]); again = seen.exists(); seen.touch()\n"
        "held = b'' if again else b'x' * (96 << 20); time.sleep(1000)"
    )
    supervisor = Supervisor(
        "the child",
        lambda: spawn([sys.executable, "-c", code, str(tmp_path / "seen")], os.environ, Path("/"), lambda _: None),
        lambda _: None,
        memory=64 << 20,
    )
    supervisor.start()
    first = supervisor.pid
    try:
        eventually(lambda: _assert(supervisor.up and supervisor.starts == 2), interval=0.01)
        assert supervisor.pid != first
        assert f"and may hold {64 << 20}" in capfd.readouterr().err
        second = supervisor.pid
        assert second is not None
        eventually(lambda: _assert(resident(second) > 4 << 20), interval=0.01)
        assert supervisor.up
    finally:
        supervisor.stop()
    assert resident(second) == 0


def test_the_first_failure_is_told_and_nothing_is_tried_again() -> None:
    def never(_: object) -> None:
        raise ValueError("no model")

    lines: list[str] = []
    supervisor = Supervisor("test", lambda: _sleeper(lines), never)
    with pytest.raises(ValueError, match="no model"):
        supervisor.start()
    assert supervisor.starts == 1
    assert not supervisor.up
    assert supervisor.pid is not None
    assert not _group(supervisor.pid)


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom serinus_runtime.engine.supervisor import spawn\n"
        "child = spawn(['/bin/sleep', '1000'], {}, Path('/'), print)\nprint(child.pid, flush=True)\ntime.sleep(1000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _group(child)
        parent.kill()
    eventually(lambda: _assert(not _group(child)), interval=0.01)


def test_what_a_child_writes_is_cut_into_lines_of_bounded_length() -> None:
    lines: list[str] = []
    process = spawn(
        [sys.executable, "-c", "print('x' * 5000); print('last')"], os.environ, Path("/"), lines.append
    )  # fmt: skip
    assert process.wait(20) == 0
    eventually(lambda: _assert(lines[-1:] == ["last"]), interval=0.01)
    assert max(map(len, lines)) <= 2000
    end(process, 0.0)


def test_an_archive_of_other_bytes_than_the_pinned_digest_is_not_even_opened(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    archive = _mar(directory / "m.mar", {"handler.py": b"pass"})
    pinned = compute_digest(directory)
    assert verify(directory, pinned) == pinned
    _mar(archive, {"handler.py": b"evil"})
    for engine in ("auto", "torch", "torchserve"):
        config = Config(model_dir=directory, model_digest=pinned, engine=engine, allow_python=True)
        with pytest.raises(FailureError) as failure:
            load_model(config)
        assert failure.value.reason is Reason.DIGEST_MISMATCH
        assert compute_digest(directory) in str(failure.value), "what it was is what somebody would look for"
    # The same archive with the digest that is its own comes as far as its declarations.
    with pytest.raises(FailureError, match=declared.FILE):
        load_model(
            Config(model_dir=directory, model_digest=compute_digest(directory), engine="torch", allow_python=True)
        )


def test_the_handler_of_an_archive_is_not_run_unless_somebody_says_so(tmp_path: Path) -> None:
    _mar(tmp_path / "m.mar", {"handler.py": b"pass"})
    for engine in ("auto", "torch"):
        with pytest.raises(FailureError, match="SERINUS_ALLOW_PYTHON=true"):
            load_model(Config(model_dir=tmp_path, engine=engine))
