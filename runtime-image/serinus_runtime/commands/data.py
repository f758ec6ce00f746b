"""Rows from a file, as a model's inputs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serinus_runtime.about import About
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec

MAX_ROWS = 1_000_000
_CSV_WORDS = {"true": 1, "false": 0}
SUFFIXES = (".csv", ".jsonl", ".npz")


class DataError(ValueError):
    """The file does not hold rows for this model; the text says where and what to write."""


def read_inputs(path: Path, signature: Signature, about: About) -> tuple[dict[str, Array], int]:
    """The model's inputs from the rows in `path`, and how many rows there are; a million at most.

    .csv has a header with the columns; .jsonl one object per line, as /predict takes it; .npz an array per column or
    per input. Columns that the model does not know (a label, say) are left out. An empty or null number is NaN.
    Raises DataError, or OSError when the file cannot be read.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".npz": _npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: what is in it? Name it {', '.join(SUFFIXES)}")
    table = reader(path)
    inputs = {spec.name: _input(path, spec, about.columns.get(spec.name, ()), table) for spec in signature.inputs}
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise DataError(f"{path}: the columns need the same number of rows, at least one; found {sorted(sizes)}")
    return inputs, sizes.pop()


def batches(inputs: Mapping[str, Array], rows: int, size: int) -> Iterator[dict[str, Array]]:
    """The inputs in slices of at most `size` rows."""
    for at in range(0, rows, size):
        yield {name: array[at : at + size] for name, array in inputs.items()}


def _csv(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        names = next(reader, [])
        columns: list[list[str]] = [[] for _ in names]
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise DataError(f"{path}:{reader.line_num}: {len(row)} cells, but the header has {len(names)}")
            if columns and len(columns[0]) >= MAX_ROWS:
                raise DataError(f"{path}: more than {MAX_ROWS} rows; a sample of them says as much")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    return dict(zip(names, columns, strict=True))


def _jsonl(path: Path) -> dict[str, Any]:
    table: dict[str, list[Any]] = {}
    rows = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict) or (rows and row.keys() != table.keys()):
                raise DataError(f"{path}:{number}: every line must be an object with the same members")
            if rows >= MAX_ROWS:
                raise DataError(f"{path}: more than {MAX_ROWS} rows; a sample of them says as much")
            rows += 1
            for name, value in row.items():
                table.setdefault(name, []).append(value)
    return dict(table)


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except ValueError as error:
        raise DataError(f"{path}: {error}; save plain arrays, text as str and not as objects") from None


def _input(path: Path, spec: TensorSpec, names: tuple[str, ...], table: Mapping[str, Any]) -> Array:
    if spec.name in table:
        array = _array(path, spec, spec.name, table[spec.name])
        shape = (len(array), *(abs(size) for size in spec.shape[1:]))
        try:
            return array.reshape(len(array), *spec.shape[1:]) if array.shape != shape else array
        except ValueError:
            raise DataError(
                f"{path}: {spec.name!r} has the shape {list(array.shape)}, not {list(spec.shape)}"
            ) from None
    if missing := [name for name in names or (spec.name,) if name not in table]:
        raise DataError(f"{path}: no column {', '.join(map(repr, missing[:20]))}; there are {', '.join(table)[:400]}")
    return np.stack([_array(path, spec, name, table[name]).reshape(-1) for name in names], axis=1)


def _array(path: Path, spec: TensorSpec, name: str, values: Any) -> Array:
    dtype = NUMPY[spec.datatype]
    if isinstance(values, np.ndarray):
        return values.astype(object if dtype.kind == "O" else dtype)
    if dtype.kind == "O":
        return np.array([str(value) for value in values], dtype=object)
    empty: Any = np.nan if dtype.kind == "f" else None
    cells = [empty if value in ("", None) else _CSV_WORDS.get(value, value) for value in values] if any(
        isinstance(value, str) or value is None for value in values
    ) else values  # fmt: skip
    try:
        if dtype.kind in "iu":
            return np.array([int(cell) for cell in cells], dtype=dtype)
        return np.array(cells, dtype=np.float64 if dtype.kind == "f" else np.int64).astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: column {name!r} must hold {spec.datatype}: {error}") from None
