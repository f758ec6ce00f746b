"""`serinus-runtime reference`: rows from a file become what drift is measured against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serinus_runtime.cli import main
from serinus_runtime.digest import compute_digest
from serinus_runtime.drift import reference
from serinus_runtime.drift.reference import Numbers, Values
from unit.runtime import support

ROWS = 600


def rows() -> list[dict[str, object]]:
    random = np.random.default_rng(0)
    return [
        {
            "amount": round(float(random.exponential(0.2)), 4),
            "age": float(n % 7) / 100,
            "hour": float(n % 2) / 100,
            "category": "travel" if n % 3 else "food",
            "fraud": 0,
        }
        for n in range(ROWS)
    ]


def written(path: Path) -> Path:
    made = rows()
    if path.suffix == ".csv":
        lines = [",".join(made[0]), *(",".join(map(str, row.values())) for row in made)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
    else:
        np.savez(path, **{name: np.array([row[name] for row in made]) for name in made[0]})
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".npz"])
def test_every_kind_of_file_gives_the_same_reference(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = support.scorer_model(tmp_path / "m")
    assert main(["reference", "--data", str(written(tmp_path / f"data{suffix}")), str(directory)]) == 0
    assert compute_digest(directory) in capsys.readouterr().out
    made = reference.read(directory)
    assert made is not None
    assert made.rows == ROWS
    assert list(made.inputs) == ["amount", "age", "hour", "category"], "what the model does not take is left out"
    assert made.inputs["category"] == Values(["travel", "food"], [400.0, 200.0])
    hour = made.inputs["hour"]
    assert isinstance(hour, Numbers)
    assert hour.counts == [300.0, 300.0]
    score = made.outputs["score"]
    assert isinstance(score, Numbers)
    told = [np.float32(row["amount"]) + np.float32(row["age"]) + np.float32(row["hour"]) for row in rows()]  # type: ignore[arg-type]
    assert score.edges[9] == pytest.approx(float(np.quantile(told, 0.5, method="inverted_cdf")), abs=1e-6)


def test_it_can_be_read_by_programs_and_written_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = support.scorer_model(tmp_path / "m")
    before = compute_digest(directory)
    data, out = written(tmp_path / "data.csv"), tmp_path / "r.json"
    assert main(["reference", "--data", str(data), "--out", str(out), "-o", "json", str(directory)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["digest"], told["file"]) == (ROWS, before, str(out))
    assert reference.decode(out.read_bytes()).rows == ROWS


def test_what_is_missing_is_counted_apart(tmp_path: Path) -> None:
    directory = support.scorer_model(tmp_path / "m")
    path = tmp_path / "data.jsonl"
    made = [{**row, "age": None if n < 10 else row["age"]} for n, row in enumerate(rows())]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    assert main(["reference", "--data", str(path), str(directory)]) == 0
    found = reference.read(directory)
    assert found is not None
    assert found.inputs["age"].all_counts()[-1] == 10


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.txt", "", "Name it .csv, .jsonl, .npz"),
        ("d.csv", "amount,age\n1,2\n", "no column 'hour'"),
        ("d.csv", "amount,age\n1\n", "d.csv:2: 1 cells, but the header has 2"),
        ("d.csv", "amount,age,hour,category\n1,x,3,a\n", "column 'age' must hold FP32"),
        ("d.csv", "amount,age,hour,category\n1,2,3,a\n", "1 rows; a distribution needs 500"),
        ("d.jsonl", '{"a": 1}\n{"b": 1}\n', "d.jsonl:2: every line must be an object with the same members"),
        ("d.jsonl", "{\n", "d.jsonl:1: not JSON"),
        ("none.csv", None, "No such file"),
    ],
)
def test_what_cannot_be_read_says_what_to_write(
    tmp_path: Path, name: str, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = support.scorer_model(tmp_path / "m")
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["reference", "--data", str(tmp_path / name), str(directory)]) == 78
    assert message in json.loads(capsys.readouterr().err.splitlines()[-1])["message"]
    assert not (directory / reference.FILE).exists()
