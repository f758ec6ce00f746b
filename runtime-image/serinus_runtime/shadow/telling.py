"""From a prediction to what a tap tells of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.about import DECISION, About
from serinus_runtime.datatypes import Array
from serinus_runtime.drift.columns import Place, flatten, input_places, score_place
from serinus_runtime.engine import Signature
from serinus_runtime.inputhash import input_hash
from serinus_runtime.predictionlog import REDACTED, Prediction
from serinus_runtime.shadow.records import Record, Sample

_VALUES = 256
"""Values of a tensor that are compared."""
_COLUMNS = 64
"""Columns of the inputs whose distributions are compared."""
_ROWS = 8
"""Rows of a request whose inputs and scores are told."""


class Wanted(msgspec.Struct, frozen=True):
    """What a reader asks for beyond the answers."""

    inputs_below: int = 0
    """Inputs of requests whose `place` is below."""
    samples_below: int = 0
    redact: frozenset[str] = frozenset()
    """Inputs and columns of inputs that are not told."""


class Teller:
    """Of one model. `redact` holds whoever asks."""

    def __init__(self, signature: Signature | None, about: About, redact: frozenset[str] = frozenset()) -> None:
        self._rule = about.rule
        self._redact = redact
        self._named = about.columns
        self._places: list[Place] = input_places(signature, about)[:_COLUMNS] if signature is not None else []
        self._score = score_place(signature, about) if signature is not None else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what `Record.inputs` holds."""
        return tuple(place.name for place in self._places)

    def record(self, prediction: Prediction, wanted: Wanted) -> Record:
        """What is told of `prediction`."""
        labels: dict[str, list[Any]] = {}
        numbers: dict[str, list[float]] = {}
        scores: list[float] = []
        size = 200
        for name, array in zip(prediction.names, prediction.outputs, strict=True):
            if name in self._redact or name in wanted.redact:
                continue
            values = _some(array)
            size += 24 * len(values)
            if array.dtype.kind == "f":
                numbers[name] = values
            else:
                labels[name] = [_text(value) for value in values]
            if self._rule is not None and name == self._rule.output and len(array):
                found = self._rule.scores(array)[:_VALUES]
                labels[DECISION] = self._rule.decide(found).tolist()
                scores = found[:_ROWS].astype(np.float64).tolist()
            elif self._rule is None and self._score is not None and name == self._score.tensor and len(array):
                table = array.reshape(len(array), -1)
                if self._score.at < table.shape[1]:
                    scores = table[:_ROWS, self._score.at].astype(np.float64).tolist()
        inputs, place = prediction.inputs, zlib.crc32(prediction.request_id)
        rows: list[list[Any]] = []
        if inputs and place < wanted.inputs_below:
            rows = self._rows(inputs, wanted)
            size += 32 * sum(map(len, rows))
        sample = None
        if inputs and place < wanted.samples_below:
            sample = Sample(self.shown(inputs, wanted))
            size += 2048
        return Record(
            prediction.request_id.decode("latin-1"),
            prediction.code,
            round((prediction.answered - prediction.received) * 1e3, 3),
            prediction.rows,
            input_hash(inputs) if inputs else "",
            labels,
            numbers,
            scores,
            rows,
            sample,
            size,
        )

    def shown(self, inputs: Mapping[str, Array], wanted: Wanted) -> dict[str, Any]:
        """The inputs as people may see them: what is redacted is not there."""
        hidden = self._redact | wanted.redact
        told: dict[str, Any] = {}
        for name, array in inputs.items():
            names = self._named.get(name, ())
            if name in hidden:
                told[name] = REDACTED
            elif names and array.ndim == 2:
                rows = array[:_ROWS].tolist()
                told[name] = [
                    {column: REDACTED if column in hidden else value for column, value in zip(names, row, strict=False)}
                    for row in rows
                ]
            else:
                told[name] = tensor(array)
        return told

    def hides(self, inputs: Mapping[str, Array], wanted: Wanted) -> bool:
        """Whether anything of `inputs` is redacted: then what is made of them must not be shown either."""
        hidden = self._redact | wanted.redact
        return any(name in hidden or not hidden.isdisjoint(self._named.get(name, ())) for name in inputs)

    def _rows(self, inputs: Mapping[str, Array], wanted: Wanted) -> list[list[Any]]:
        hidden = self._redact | wanted.redact
        first = {name: array[:_ROWS] for name, array in inputs.items() if array.ndim}
        found = flatten([first], self._places)
        count = min((len(values) for values in found.values()), default=0)
        columns: list[Sequence[Any]] = []
        for place in self._places:
            values = found.get(place.name)
            if values is None or place.name in hidden or place.tensor in hidden:
                columns.append([None] * count)
            elif place.text:
                columns.append([str(value)[:64] for value in values[:count].tolist()])
            else:
                columns.append(values[:count].astype(np.float64).tolist())
        return [list(row) for row in zip(*columns, strict=True)]


def tensor(array: Array) -> object:
    """A small tensor as it is; of a larger one its shape and its first values."""
    if array.size <= _VALUES:
        return array.tolist()
    return {"shape": list(array.shape), "first": array.reshape(-1)[:16].tolist()}


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _some(array: Array) -> list[Any]:
    flat = array.reshape(-1)
    if flat.size > _VALUES:
        flat = flat[:: -(-flat.size // _VALUES)]
    values: list[Any] = flat.tolist()
    return values
