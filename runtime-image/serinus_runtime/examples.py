"""Example rows that a model brings for its warm-up: `warmup.jsonl`, `warmup.csv` or `warmup.npz` in its directory.

Warm-up makes zeros and empty strings from the signature; Python that comes with a model may refuse those. The file lies
in the model directory, so the model's digest covers it. It is written as for `serinus-runtime reference`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from serinus_runtime.about import read as read_about
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Signature
from serinus_runtime.failures import FailureError, Reason

FILES = ("warmup.jsonl", "warmup.csv", "warmup.npz")
HOW = f"ship a few rows that it takes as {FILES[0]}, one object a line as /predict takes it"
_MAX_BYTES = 16 << 20


class Examples(msgspec.Struct, frozen=True):
    """Rows from `file`: the model's inputs, axis 0 the row."""

    file: str
    inputs: dict[str, Array]
    rows: int

    def at(self, signature: Signature, rows: int) -> dict[str, Array]:
        """The inputs with `rows` rows, going round; for a model that is not batched, as many as it is fixed to."""
        made: dict[str, Array] = {}
        for spec in signature.inputs:
            fixed = spec.shape[0] if spec.shape else 1
            wanted = rows if signature.batched else self.rows if fixed == -1 else fixed
            made[spec.name] = self.inputs[spec.name][np.arange(wanted) % self.rows]
        return made


def file_of(directory: Path) -> Path | None:
    """The file with examples in `directory`. Raises FailureError(WARMUP_FAILED) when there are two."""
    found = [directory / name for name in FILES if (directory / name).is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise FailureError(Reason.WARMUP_FAILED, f"there are {names}: keep one of them")
    return found[0] if found else None


def read(directory: Path, signature: Signature) -> Examples | None:
    """The examples in `directory` for a model with `signature`; None when there are none.

    Raises FailureError(WARMUP_FAILED) for a file that does not fit the model.
    """
    path = file_of(directory)
    if path is None:
        return None
    from serinus_runtime.commands.data import DataError, read_inputs

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; a few rows are enough")  # noqa: TRY301
        inputs, rows = read_inputs(path, signature, read_about(directory, signature))
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise FailureError(Reason.WARMUP_FAILED, f"the examples cannot be used: {error}") from error
    return Examples(path.name, inputs, rows)
