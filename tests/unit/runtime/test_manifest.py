"""manifest.json: what `pack` writes of a model, what `inspect` and `serve` make of it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime import __version__, modelmanifest
from serinus_runtime.cli import main
from serinus_runtime.config import Config
from serinus_runtime.datatypes import NUMPY
from serinus_runtime.digest import compute_digest
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fetch import fetch
from serinus_runtime.loading import load_model
from serinus_runtime.modelmanifest import Manifest, SignatureOf, misfits
from serinus_runtime.predictionlog import preprocessing_hash
from unit.runtime import support

FORMAT = modelmanifest.FORMAT
PROCESSING_HASH = "sha256:" + hashlib.sha256(b"def preprocess(inputs):\n    return inputs\n").hexdigest()


def told(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*(str(each) for each in arguments), "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


def packed(
    capsys: pytest.CaptureFixture[str], directory: Path, into: Path, *flags: str
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The unpacked archive, its manifest.json, and what `pack` told."""
    archive = into.with_name(f"{into.name}.tar.gz")
    said = told(capsys, "pack", directory, archive, *flags)
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into, json.loads((into / "manifest.json").read_text()), said


def processed_model(directory: Path) -> Path:
    """sum_model with Python before it that changes nothing."""
    support.sum_model(directory)
    (directory / "processing.py").write_text("def preprocess(inputs):\n    return inputs\n")
    (directory / "model.json").write_text('{"preprocess": "processing.py"}')
    return directory


def reference_file(directory: Path) -> bytes:
    data = b'{"rows": 2, "outputs": {"y": {"kind": "numbers", "edges": [1.0], "counts": [1.0, 1.0]}}}'
    (directory / "reference.json").write_bytes(data)
    return data


def test_pack_writes_what_the_model_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.sum_model(tmp_path / "m")
    data = reference_file(directory)
    (directory / "model.json").write_text('{"preprocessing_hash": "p1"}')
    before = compute_digest(directory)
    unpacked, manifest, said = packed(capsys, directory, tmp_path / "u", "--model-version", "2026.11-a")
    import onnxruntime

    assert manifest == {
        "format": FORMAT,
        "runtime": f"serinus-runtime-{__version__} onnxruntime-{onnxruntime.__version__}",
        "version": "2026.11-a",
        "preprocessing": "p1",
        "reference": "sha256:" + hashlib.sha256(data).hexdigest(),
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        },
    }
    assert said["manifest"] == manifest
    assert "warnings" not in said
    assert compute_digest(directory) == before, "pack writes into the archive, never into the directory"
    assert said["digest"] == compute_digest(unpacked) != before
    line = f"{hashlib.sha256((unpacked / 'manifest.json').read_bytes()).hexdigest()}  manifest.json"
    assert line in (unpacked / "SHA256SUMS").read_text().splitlines()
    into = tmp_path / "served" / "m"
    into.parent.mkdir()
    uri = (tmp_path / "u.tar.gz").as_uri()
    assert fetch(Config(model_uri=uri, model_digest=said["digest"], model_dir=into)) == said["digest"]


def test_what_is_not_known_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, manifest, _ = packed(capsys, support.sum_model(tmp_path / "m"), tmp_path / "u")
    assert set(manifest) == {"format", "runtime", "signature"}


def test_the_same_model_elsewhere_gives_the_same_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("one", "elsewhere/two"):
        support.scorer_model(tmp_path / place / "m")
        told(capsys, "pack", tmp_path / place / "m", tmp_path / f"{place[:3]}.tgz", "--model-version", "7")
    assert (tmp_path / "one.tgz").read_bytes() == (tmp_path / "els.tgz").read_bytes()


def test_what_was_packed_packs_to_the_same_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest of pack's own is made anew: it says nothing of itself, and what it said before does not stay."""
    unpacked, _, said = packed(capsys, support.sum_model(tmp_path / "m"), tmp_path / "u", "--model-version", "1")
    assert told(capsys, "pack", unpacked, tmp_path / "a.tgz", "--model-version", "1")["digest"] == said["digest"]
    other = told(capsys, "pack", unpacked, tmp_path / "a.tgz", "--model-version", "2")
    assert (other["manifest"]["version"], other["digest"] != said["digest"]) == ("2", True)
    (unpacked / "manifest.json").write_text(json.dumps({"format": "serinus-model-manifest/99", "version": [1]}))
    assert told(capsys, "pack", unpacked, tmp_path / "a.tgz", "--model-version", "1")["digest"] == said["digest"]


@pytest.mark.parametrize("name", ["a b", "./z", "-"])
def test_a_version_is_any_text_that_answers_may_carry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    directory = support.sum_model(tmp_path / "m")
    flag = f"--model-version={name}"
    if "/" in name:
        assert main(["pack", str(directory), str(tmp_path / "m.tgz"), flag]) == 78
        assert "--model-version: " in capsys.readouterr().err
        assert not (tmp_path / "m.tgz").exists()
    else:
        assert packed(capsys, directory, tmp_path / "u", flag)[1]["version"] == name


def test_a_version_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(support.sum_model(tmp_path / "m")), str(tmp_path / "m.tgz"), "--model-version", ""]) == 78
    assert "--model-version: it is empty" in capsys.readouterr().err


def test_a_model_that_cannot_be_opened_is_packed_without_its_signature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(b"garbage")
    _, manifest, said = packed(capsys, tmp_path / "m", tmp_path / "u", "--model-version", "1")
    assert manifest == {"format": FORMAT, "runtime": f"serinus-runtime-{__version__}", "version": "1"}
    (warning,) = said["warnings"]
    assert "without the signature" in warning
    assert "cannot load" in warning
    assert main(["pack", str(tmp_path / "m"), str(tmp_path / "again.tgz")]) == 0
    assert "without the signature" in capsys.readouterr().out


def test_python_of_the_model_is_run_only_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = processed_model(tmp_path / "m")
    _, manifest, said = packed(capsys, directory, tmp_path / "u")
    assert "SERINUS_ALLOW_PYTHON" in said["warnings"][0]
    assert (manifest["preprocessing"], "signature" in manifest) == (PROCESSING_HASH, False)
    assert manifest["preprocessing"] == preprocessing_hash(directory)
    monkeypatch.setenv("SERINUS_ALLOW_PYTHON", "true")
    unpacked, manifest, said = packed(capsys, directory, tmp_path / "v")
    assert ("signature" in manifest, "warnings" in said) == (True, False)
    assert told(capsys, "inspect", unpacked)["manifest"] == manifest


@pytest.mark.parametrize("data", [b'{"icons": []}', b"[1]", b"{", b"\xff", b'{"format": 1}'])
def test_a_manifest_of_somebody_elses_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "manifest.json").write_bytes(data)
    said = told(capsys, "pack", directory, tmp_path / "m.tgz", "--model-version", "1")
    assert said["digest"] == compute_digest(directory)
    assert "manifest" not in said
    assert "did not write" in said["warnings"][0]
    with tarfile.open(tmp_path / "m.tgz") as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        assert member.read() == data


def test_a_directory_of_that_name_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "manifest.json").mkdir()
    (directory / "manifest.json" / "x").touch()
    said = told(capsys, "pack", directory, tmp_path / "m.tgz")
    assert said["digest"] == compute_digest(directory)
    assert "did not write" in said["warnings"][0]


def test_nothing_but_a_manifest_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "manifest.json").write_bytes(modelmanifest.encode(Manifest(FORMAT, "r")))
    assert main(["pack", str(tmp_path / "m"), str(tmp_path / "m.tgz")]) == 78
    assert "holds no files" in capsys.readouterr().err


def test_inspect_shows_it_and_what_fits_it_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.sum_model(tmp_path / "m")
    reference_file(directory)
    (directory / "model.json").write_text('{"preprocessing_hash": "p1"}')
    unpacked, manifest, _ = packed(capsys, directory, tmp_path / "u", "--model-version", "7")
    found = told(capsys, "inspect", unpacked)
    assert found["manifest"] == manifest
    assert not any("manifest.json" in text for text in found["warnings"])
    assert main(["inspect", str(unpacked)]) == 0
    assert "version 7, packed with serinus-runtime-" in capsys.readouterr().out

    support.columns_model(unpacked)
    (unpacked / "model.json").write_text('{"preprocessing_hash": "p2"}')
    (unpacked / "reference.json").unlink()
    texts = [text for text in told(capsys, "inspect", unpacked)["warnings"] if "manifest.json" in text]
    assert texts == [
        "manifest.json no longer fits: the signature differs: input 'x' FP32 [-1, 3] is gone; input 'amount' FP32 "
        "[-1, 1] is new; input 'count' INT64 [-1, 1] is new; input 'category' BYTES [-1, 1] is new; output 'y' FP32 "
        "[-1, 1] is gone; and 3 more; pack the directory again",
        "manifest.json no longer fits: the preprocessing hash is 'p2', and was 'p1'; pack the directory again",
        "manifest.json no longer fits: the hash of reference.json is none, and was "
        f"'{manifest['reference']}'; pack the directory again",
    ]


def test_inspect_compares_the_rest_where_the_model_cannot_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpacked, _, _ = packed(capsys, support.sum_model(tmp_path / "m"), tmp_path / "u")
    (unpacked / "model.onnx").write_bytes(b"garbage")
    (unpacked / "model.json").write_text('{"preprocessing_hash": "p2"}')
    texts = [text for text in told(capsys, "inspect", unpacked, code=66)["warnings"] if "manifest.json" in text]
    assert texts == [
        "manifest.json no longer fits: the preprocessing hash is 'p2', and was none; pack the directory again"
    ]


BAD = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "too deep": b"[" * 100_000,
    "too large": b'"' + b"x" * (modelmanifest.MAX_BYTES + 1) + b'"',
    "newer": b'{"format": "serinus-model-manifest/2", "runtime": "r"}',
    "other types": json.dumps({"format": FORMAT, "runtime": "r", "signature": {"inputs": 3}}).encode(),
    "a version for no terminal": json.dumps({"format": FORMAT, "runtime": "r", "version": "\x1b[2J"}).encode(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_manifest_is_told_and_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "manifest.json").write_bytes(BAD[kind])
    found = told(capsys, "inspect", directory)
    assert "manifest" not in found
    assert any(text.startswith("manifest.json cannot be used: ") for text in found["warnings"])
    load_model(Config(model_dir=directory)).engine.close()
    assert "manifest.json cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b'{"icons": []}', b"[1]", b"null", b'{"format": "theirs"}'])
def test_a_file_of_another_kind_is_nobodys_business(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    directory = support.sum_model(tmp_path / "m")
    (directory / "manifest.json").write_bytes(data)
    assert modelmanifest.read(directory) is None
    assert "manifest" not in told(capsys, "inspect", directory)
    load_model(Config(model_dir=directory)).engine.close()
    assert "manifest.json" not in capsys.readouterr().err


def test_serving_tells_of_a_signature_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unpacked, _, _ = packed(capsys, support.sum_model(tmp_path / "m"), tmp_path / "u")
    load_model(Config(model_dir=unpacked)).engine.close()
    assert "manifest.json" not in capsys.readouterr().err
    support.columns_model(unpacked)
    load_model(Config(model_dir=unpacked)).engine.close()
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "manifest.json" in line]
    assert line["level"] == "warning"
    assert "input 'x' FP32 [-1, 3] is gone" in line["why"]


SPECS = st.builds(
    TensorSpec,
    st.text(min_size=1, max_size=4),
    st.sampled_from(sorted(NUMPY)),
    st.lists(st.integers(-1, 9), max_size=3).map(tuple),
)
SIDES = st.lists(SPECS, max_size=9, unique_by=lambda spec: spec.name).map(tuple)
SIGNATURES = st.builds(Signature, SIDES, SIDES, st.booleans())


@given(SIGNATURES, SIGNATURES)
def test_signatures_differ_where_anything_of_them_does(one: Signature, other: Signature) -> None:
    known = SignatureOf(one.inputs, one.outputs)
    same = (one.inputs, one.outputs) == (other.inputs, other.outputs)
    assert (misfits(Manifest(FORMAT, "r", signature=known), signature=other) == []) is same
    assert misfits(Manifest(FORMAT, "r"), signature=other) == []


@given(SIGNATURES, st.text("ab.c-1", max_size=8))
def test_what_is_written_is_read(signature: Signature, text: str) -> None:
    made = Manifest(FORMAT, "r", text, text, text, SignatureOf(signature.inputs, signature.outputs))
    assert modelmanifest.decode(modelmanifest.encode(made)) == made
    assert msgspec.json.decode(modelmanifest.encode(made))["format"] == FORMAT


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused_and_nothing_else(data: bytes) -> None:
    try:
        found = modelmanifest.decode(data)
    except ValueError:
        return
    assert found is None


def test_what_differs_is_told_in_a_line() -> None:
    x, z = TensorSpec("x", "FP32", (-1, 3)), TensorSpec("z", "FP32", (-1, 3))
    known = Manifest(FORMAT, "r", signature=SignatureOf((x, z), (x,)))
    (text,) = misfits(known, signature=Signature((z, x), (x,), batched=True))
    assert "inputs come in another order" in text
    long = TensorSpec("n" * 10_000, "FP32", (-1,))
    (text,) = misfits(known, signature=Signature((x, z, long), (x,), batched=True))
    assert len(text) <= 1000
    changed = TensorSpec("x", "FP64", (-1, 4))
    (text,) = misfits(known, signature=Signature((changed, z), (x,), batched=True))
    assert "input 'x' is FP64 [-1, 4], and was FP32 [-1, 3]" in text
