"""`serinus-runtime reference`: writes the distributions of a data set, and of the model's answers to it."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np

from serinus_runtime.commands.data import DataError, batches, read_inputs
from serinus_runtime.commands.model import opened
from serinus_runtime.commands.tell import Format, table
from serinus_runtime.datatypes import Array
from serinus_runtime.digest import compute_digest
from serinus_runtime.drift import reference
from serinus_runtime.drift.columns import flatten, input_places, output_places
from serinus_runtime.drift.reference import Numbers, Reference
from serinus_runtime.drift.window import MINIMUM
from serinus_runtime.failures import FailureError, Reason

_BATCH = 1024


def make(directory: Path, data: Path) -> Reference:
    """The reference for the model in `directory`: the rows in `data`, and its answers to them. Raises FailureError."""
    with opened(directory) as model:
        try:
            inputs, rows = read_inputs(data, model.signature, model.about)
            if rows < MINIMUM:
                raise DataError(f"{data}: {rows} rows; a distribution needs {MINIMUM:.0f}, better 10000")
            names = [spec.name for spec in model.signature.outputs]
            found: dict[str, list[Array]] = {name: [] for name in names}
            for batch in batches(inputs, rows, _BATCH if model.signature.batched else 1):
                for name, answer in zip(names, model.engine.run(batch, names), strict=True):
                    found[name].append(answer)
            outputs = {name: np.concatenate(parts) for name, parts in found.items()}
            return reference.make(
                flatten([inputs], input_places(model.signature, model.about)),
                flatten([outputs], output_places(model.signature, model.about)),
                rows,
            )
        except (OSError, ValueError) as error:
            raise FailureError(Reason.INVALID_CONFIG, str(error)) from error


def run(arguments: argparse.Namespace) -> int:
    """Writes `reference.json` into the model directory and says what is in it."""
    directory: Path = arguments.directory
    made = make(directory, arguments.data)
    path: Path = arguments.out or directory / reference.FILE
    try:
        path.write_bytes(reference.encode(made))
        digest = compute_digest(directory)
    except (OSError, ValueError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot write {path}: {error}") from error
    if arguments.output is Format.JSON:
        told = {"file": str(path), "rows": made.rows, "digest": digest}
        print(msgspec.json.encode({**told, "inputs": made.inputs, "outputs": made.outputs}).decode())
        return 0
    rows = []
    for kind, columns in (("input", made.inputs), ("output", made.outputs)):
        for name, column in columns.items():
            if isinstance(column, Numbers):
                span = f"{column.edges[0]:g} ... {column.edges[-1]:g}" if column.edges else "nothing finite"
                rows.append((kind, name, f"{len(column.counts)} bins", span, f"{column.missing:g} missing"))
            else:
                shown = ", ".join(column.values[:4]) + (" ..." if len(column.values) > 4 else "")
                rows.append((kind, name, f"{len(column.values)} values", shown, f"{column.other:g} other"))
    print(table(("", "column", "", "", ""), rows))
    print(f"\n{path}: {made.rows} rows\n{digest}")
    return 0
