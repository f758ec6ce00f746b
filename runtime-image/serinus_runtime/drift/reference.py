"""`reference.json` in a model directory: how the columns and outputs were distributed when the model was made.

It holds bins and counts, never rows. It lies in the model directory, so the model's digest covers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.drift import bins

FILE = "reference.json"
MAX_COLUMNS = 512
"""Each is a time series for each replica."""
_MAX_BYTES = 8 << 20
_MAX_BINS = 1000


class Numbers(msgspec.Struct, frozen=True, tag="numbers", tag_field="kind", forbid_unknown_fields=True):
    """A column of numbers. `counts`: one for each bin, in order; the last bin has no upper edge."""

    edges: list[float]
    counts: list[float]
    missing: float = 0.0

    def all_counts(self) -> bins.Floats:
        """Counts of the bins and of what is missing."""
        return np.array([*self.counts, self.missing], dtype=np.float64)


class Values(msgspec.Struct, frozen=True, tag="values", tag_field="kind", forbid_unknown_fields=True):
    """A column of strings. `other`: rows with none of `values`."""

    values: list[str]
    counts: list[float]
    other: float = 0.0

    def all_counts(self) -> bins.Floats:
        """Counts of the values and of all others."""
        return np.array([*self.counts, self.other], dtype=np.float64)


Column = Numbers | Values


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Distributions by name. An output `score` is the score that decisions are made from."""

    rows: int
    inputs: dict[str, Column] = {}
    outputs: dict[str, Column] = {}
    version: int = 1


def describe(values: Array, count: int = 10, most: int = 20) -> Column:
    """The distribution of one column: about `count` bins for numbers, the `most` frequent values for strings."""
    if values.dtype.kind != "O":
        numbers = values.astype(np.float64).ravel()
        if not np.isfinite(numbers).any():
            return Numbers([], [float(np.isinf(numbers).sum())], float(np.isnan(numbers).sum()))
        edges = bins.quantile_edges(numbers, count)
        counts = bins.count_numbers(numbers, edges)
        return Numbers(edges.tolist(), counts[:-1].tolist(), float(counts[-1]))
    frequent = Counter(str(value) for value in values.ravel()).most_common(most)
    other = values.size - sum(count for _, count in frequent)
    return Values([value for value, _ in frequent], [float(count) for _, count in frequent], float(other))


def make(inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int) -> Reference:
    """The reference of flat columns of `rows` rows each. Outputs get twice as many bins: KS is read from them."""
    if len(inputs) + len(outputs) > MAX_COLUMNS:
        raise ValueError(f"there are {len(inputs) + len(outputs)} columns; at most {MAX_COLUMNS} can be watched")
    return Reference(
        rows,
        {name: describe(values) for name, values in inputs.items()},
        {name: describe(values, 20) for name, values in outputs.items()},
    )


def encode(reference: Reference) -> bytes:
    """The file's bytes: the same for the same reference."""
    return msgspec.json.format(msgspec.json.encode(reference), indent=1) + b"\n"


def decode(data: bytes) -> Reference:
    """What `encode` wrote. Raises ValueError that says what is wrong."""
    reference = msgspec.json.decode(data, type=Reference)
    if reference.version != 1:
        raise ValueError(f"version {reference.version} is not understood: write 1")
    if len(reference.inputs) + len(reference.outputs) > MAX_COLUMNS:
        raise ValueError(f"more than {MAX_COLUMNS} columns")
    for name, column in [*reference.inputs.items(), *reference.outputs.items()]:
        _check(name, column)
    return reference


def read(directory: Path) -> Reference | None:
    """The reference of a model directory; None when it has none. Raises ValueError or OSError when it is no good."""
    path = directory / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{FILE} is larger than {_MAX_BYTES} bytes")
    return decode(path.read_bytes())


def _check(name: str, column: Column) -> None:
    counts = column.all_counts()
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0) or len(counts) > _MAX_BINS:
        raise ValueError(f"{name!r}: counts must be finite, not negative, not all 0, and at most {_MAX_BINS}")
    if isinstance(column, Values):
        if len(set(column.values)) != len(column.values) or len(column.values) != len(column.counts):
            raise ValueError(f"{name!r}: write one count for each of the values, each value once")
    elif len(column.counts) != len(column.edges) + 1 or any(
        not low < high for low, high in zip(column.edges, column.edges[1:], strict=False)
    ):
        raise ValueError(f"{name!r}: write rising edges, and one count more than edges")
