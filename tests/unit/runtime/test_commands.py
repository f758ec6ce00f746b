"""What the command does before a model is served: inspect, pack, bench, settings from a file, help."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serinus_runtime import configfile, settings
from serinus_runtime.cli import main
from serinus_runtime.commands import onnxfile
from serinus_runtime.commands.bench import Cost, advise, measure
from serinus_runtime.commands.onnxfile import NotOnnxError
from serinus_runtime.config import SETTINGS, Config, from_environment
from serinus_runtime.digest import compute_digest
from serinus_runtime.failures import FailureError
from serinus_runtime.fetch import fetch
from unit.runtime import support


def shown(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(each) for each in arguments]) == code
    return capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 78) -> str:
    capsys.readouterr()
    assert main([str(each) for each in arguments]) == code
    message: str = json.loads(capsys.readouterr().err.splitlines()[-1])["message"]
    return message


def test_inspect_shows_what_a_directory_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.scorer_model(tmp_path / "m")
    text = shown(capsys, "inspect", directory)
    for part in (
        compute_digest(directory), "IR 9, ai.onnx 17, ai.onnx.ml 3", "5 nodes", "CPU", "rows of requests are joined",
        "amount, age, hour, category", "probabilities: >= 0.82 block, >= 0.6 step_up, else allow", "[?, 3]",
        "no reference.json",
    ):  # fmt: skip
        assert part in text
    told = json.loads(shown(capsys, "inspect", directory, "-o", "json"))
    assert told["onnx"]["operators"]["ArgMax"] == 1
    assert told["columns"] == ["amount", "age", "hour", "category"]
    assert (told["batched"], told["files"], "failure" in told) == (True, 2, False)


def test_inspect_and_pack_know_the_examples_for_warm_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "warmup.jsonl").write_text('{"x": [1, 2, 3]}\n{"x": [4, 5, 6]}\n')
    assert "2 rows of warmup.jsonl" in shown(capsys, "inspect", directory)
    assert json.loads(shown(capsys, "inspect", directory, "-o", "json"))["warmup"] == {
        "file": "warmup.jsonl",
        "rows": 2,
    }
    shown(capsys, "pack", directory, tmp_path / "m.tgz")
    unpacked = _unpacked(tmp_path / "m.tgz", tmp_path / "u")
    assert "warmup.jsonl" in (unpacked / "SHA256SUMS").read_text()
    (directory / "warmup.jsonl").write_text('{"x": [1]}\n')
    assert "the examples cannot be used" in shown(capsys, "inspect", directory, code=66)
    (directory / "warmup.jsonl").unlink()
    (directory / "processing.py").write_text("")
    assert "processing.py zeros and empty strings" in shown(capsys, "inspect", directory)


def test_inspect_warns_of_what_will_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "have no names" in shown(capsys, "inspect", support.sum_model(tmp_path / "vector"))
    assert "axis 0" in shown(capsys, "inspect", support.sum_model(tmp_path / "fixed", rows=2))
    assert "do not follow the rows" in shown(capsys, "inspect", support.mixing_model(tmp_path / "mixing"))
    zipmap = shown(capsys, "inspect", support.zipmap_model(tmp_path / "zipmap"), code=66)
    assert "cannot be served" in zipmap
    assert "the graph ends in ZipMap" in zipmap
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.onnx").write_bytes(b"garbage")
    assert "cannot load" in json.loads(shown(capsys, "inspect", tmp_path / "broken", "-o", "json", code=66))["failure"]
    assert "cannot read" in failed(capsys, "inspect", tmp_path / "none")


def external_model(directory: Path, location: str) -> Path:
    support.sum_model(directory)
    model = onnx.load(str(directory / "model.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("int64_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    onnx.save(model, str(directory / "model.onnx"))
    return directory


@pytest.mark.parametrize(
    ("location", "warning"), [("gone.bin", "are missing"), ("../out.bin", "outside the directory")]
)
def test_weights_that_the_digest_does_not_cover_are_told(
    tmp_path: Path, location: str, warning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.bin").write_bytes(bytes(8))
    told = json.loads(
        shown(capsys, "inspect", external_model(tmp_path / "m", location), "-o", "json", code=66)
    )  # fmt: skip
    assert told["onnx"]["external"] == [location]
    assert any(warning in text for text in told["warnings"])


def test_the_reader_of_onnx_agrees_with_the_onnx_package(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "i", [], [helper.make_tensor_value_info("y", 1, None)]
    )
    nodes = [helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], producer_name="tést", ir_version=10)
    found = onnxfile.parse(memoryview(model.SerializeToString()))
    assert (found.ir_version, found.producer, found.opsets) == (10, "tést", {"ai.onnx": 21})
    assert found.operators == {"Identity": 2, "If": 1}
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(NotOnnxError, match="is empty"):
        onnxfile.read(empty)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_model_are_refused_and_nothing_else(data: bytes) -> None:
    try:
        found = onnxfile.parse(memoryview(data))
    except NotOnnxError:
        return
    assert found.ir_version
    assert found.opsets


@given(st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    whole = bytearray(helper.make_model(graph).SerializeToString())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=5)):
        whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotOnnxError):
        onnxfile.parse(memoryview(bytes(whole)[: data.draw(st.integers(0, len(whole)))]))


def test_the_same_directory_gives_the_same_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = support.scorer_model(tmp_path / "one"), tmp_path / "two"
    (one / "sub").mkdir()
    (one / "sub" / "back\\slash ü.txt").write_text("x")
    subprocess.run(["cp", "-r", str(one), str(two)], check=True)
    (two / "SHA256SUMS").write_text("stale")
    for number, path in enumerate(two.rglob("*")):
        os.utime(path, (number, number))
        path.chmod(0o755)
    for directory in (one, two):
        shown(capsys, "pack", directory, tmp_path / f"{directory.name}.tar.gz")
    first, second = ((tmp_path / f"{name}.tar.gz").read_bytes() for name in ("one", "two"))
    assert first == second
    pinned = compute_digest(_unpacked(tmp_path / "one.tar.gz", tmp_path / "u"))
    assert pinned in shown(capsys, "pack", one, tmp_path / "again.tgz")
    assert (tmp_path / "again.tgz").read_bytes() == first
    told = json.loads(shown(capsys, "pack", one, tmp_path / "again.tgz", "-o", "json"))
    assert (told["digest"], told["bytes"]) == (pinned, len(first))
    assert not list(tmp_path.glob(".*"))


def test_what_is_packed_can_be_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.scorer_model(tmp_path / "m")
    archive = tmp_path / "m.tar.gz"
    pinned = shown(capsys, "pack", directory, archive).splitlines()[1]
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["SHA256SUMS", "manifest.json", "model.json", "model.onnx"]
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in tar} == {(0, 0, "", 0o644)}
    into = tmp_path / "served" / "m"
    into.parent.mkdir()
    assert fetch(Config(model_uri=archive.as_uri(), model_digest=pinned, model_dir=into)) == pinned
    subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=_unpacked(archive, tmp_path / "u"), check=True
    )


def _unpacked(archive: Path, into: Path) -> Path:
    into.mkdir()
    with gzip.open(archive) as packed, tarfile.open(fileobj=packed) as tar:
        tar.extractall(into, filter="data")
    return into


def test_what_cannot_be_packed_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.sum_model(tmp_path / "m")
    assert "name it .tar.gz" in failed(capsys, "pack", directory, tmp_path / "m.zip")
    assert "put it elsewhere" in failed(capsys, "pack", directory, directory / "m.tgz")
    (tmp_path / "empty").mkdir()
    assert "holds no files" in failed(capsys, "pack", tmp_path / "empty", tmp_path / "e.tgz")
    (directory / "link").symlink_to("model.onnx")
    assert "links are refused" in failed(capsys, "pack", directory, tmp_path / "m.tgz")
    assert list(tmp_path.glob("*.tgz")) == []


def test_bench_ends_with_advice_and_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.scorer_model(tmp_path / "m")
    text = shown(capsys, "bench", directory, "--max-batch", 4, "--seconds", 0.01, "--threads", "1,2")
    result = json.loads(text.splitlines()[-1].removeprefix("RESULT "))
    assert [(cost["threads"], cost["rows"]) for cost in result["costs"]] == [(t, n) for t in (1, 2) for n in (1, 2, 4)]
    assert all(cost["seconds"] > 0 for cost in result["costs"])
    assert "SERINUS_BATCH_MAX_SIZE=" in text
    told = json.loads(shown(capsys, "bench", directory, "--max-batch", 1, "--seconds", 0.01, "-o", "json"))
    assert len(told["costs"]) == 1
    assert "write numbers such as 1,2,4" in failed(capsys, "bench", directory, "--threads", "many")


def costs(*table: tuple[int, int, float]) -> list[Cost]:
    return [Cost(threads, rows, milliseconds / 1e3) for threads, rows, milliseconds in table]


def test_advice_follows_the_table() -> None:
    """Trees gain a little, a large network much; threads that do not pay are not taken."""
    flat = advise(costs((1, 1, 1.0), (1, 2, 2.0), (1, 4, 4.0)))
    assert (flat.batch_max_size, flat.gain, flat.threads) == (1, 1.0, 1)
    heavy = advise(costs((1, 1, 4.0), (1, 2, 4.1), (1, 4, 4.2), (1, 8, 8.3), (2, 1, 3.9), (2, 8, 8.0)))
    assert (heavy.batch_max_size, heavy.threads, heavy.inline) == (4, 1, False)
    assert heavy.gain == pytest.approx(4 * 4.0 / 4.2)
    split = advise(costs((1, 1, 10.0), (1, 8, 80.0), (2, 1, 5.0), (2, 8, 40.0)))
    assert split.threads == 2
    assert advise(costs((1, 1, 0.02), (1, 8, 0.08))).inline is True


@given(st.lists(st.floats(1e-6, 1e-2), min_size=1, max_size=40))
def test_measuring_takes_the_median_and_ends(steps: list[float]) -> None:
    clock, calls = [0.0], [0]

    def run() -> None:
        clock[0] += steps[calls[0] % len(steps)]
        calls[0] += 1

    found = measure(run, 0.001, now=lambda: clock[0])
    assert min(steps) * 0.999 <= found <= max(steps) * 1.001
    assert calls[0] >= 6


FORMS = {
    "yaml": "modelName: fraud\nbatch_max_delay: 3ms\nqueueMaxLength: 64\npredictionLogRedact: [card, name]\n",
    "json": '{"modelName": "fraud", "batch_max_delay": "3ms", "queueMaxLength": 64, '
    '"predictionLogRedact": ["card", "name"]}',
    "toml": 'modelName = "fraud"\nbatch_max_delay = "3ms"\nqueueMaxLength = 64\n'
    'predictionLogRedact = ["card", "name"]\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_settings_from_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"runtime.{form}"
    path.write_text(FORMS[form])
    environ = {"SERINUS_CONFIG": str(path), "SERINUS_QUEUE_MAX_LENGTH": "128", "SERINUS_MODEL_NAME": ""}
    config = from_environment(configfile.with_file(environ))
    assert (config.model_name, config.batch_max_delay, config.queue_max_length) == ("fraud", 0.003, 128)
    assert config.prediction_log_redact == frozenset({"card", "name"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.yaml", "modelNmae: x\n", "'modelNmae' is not a setting; the nearest is 'modelName'"),
        ("r.yaml", "model_name: x\nmodelName: y\n", "is there twice"),
        ("r.yaml", "queue: {maxLength: 1}\n", "'queue' is not a setting"),
        ("r.yaml", "engine: {a: 1}\n", "'engine' is not a section"),
        ("r.yaml", "- a\n", "one setting a line"),
        ("r.yaml", "a: [\n", "not YAML"),
        ("r.json", "{", "Expecting"),
        ("r.toml", "a =", "Invalid"),
        ("r.ini", "", "Name it .yaml, .json or .toml"),
        ("r.json", '{"engine": null}', "'engine' must be a text"),
        ("gone.json", None, "No such file"),
    ],
)
def test_a_file_that_is_no_good_says_what_to_write(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(FailureError, match="SERINUS_CONFIG=") as caught:
        configfile.with_file({"SERINUS_CONFIG": str(tmp_path / name)})
    assert message in caught.value.message


def test_an_empty_file_and_none_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").touch()
    assert configfile.read(tmp_path / "r.yaml") == {}
    assert configfile.with_file({"A": "b"}) == {"A": "b"}


def test_help_knows_every_setting_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert len(SETTINGS) > len(Config.__struct_fields__)
    for field in SETTINGS:
        assert f"SERINUS_{field.upper()} " in text
    for part in ("65  DigestMismatch", "78  InvalidConfig", "SERINUS_CONFIG"):
        assert part in text
    assert set(settings.TEXTS) <= set(SETTINGS), "a setting that is gone is still described"


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("serinus_runtime.cli._serve", lambda settings: seen.append(settings()) or 0)
    (tmp_path / "r.toml").write_text('modelName = "file"\nmodelVersion = "file"\nhost = "file"\n')
    monkeypatch.setenv("SERINUS_CONFIG", str(tmp_path / "r.toml"))
    monkeypatch.setenv("SERINUS_MODEL_VERSION", "environment")
    monkeypatch.setenv("SERINUS_HOST", "environment")
    assert main(["serve", str(tmp_path / "m"), "--host", "flag"]) == 0
    (config,) = seen
    assert (config.model_name, config.model_version, config.host) == ("file", "environment", "flag")
    assert config.model_dir == tmp_path / "m"
    assert "SERINUS_CONFIG" in failed(capsys, "serve", "--config", tmp_path / "none.toml")
