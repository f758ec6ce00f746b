"""From a prediction to what a tap tells of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.about import About
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.drift.columns import Place, flatten, input_places, score_place
from serinus_runtime.engine import Signature
from serinus_runtime.inputhash import input_hash
from serinus_runtime.predictionlog import REDACTED, Prediction
from serinus_runtime.shadow.records import VALUES, Sample, Scoring, Tensor, Told

_HASHED = 64 << 10
"""Larger inputs are not hashed: that would hold up the requests."""
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
    candidate: str = ""
    """The revision whose requests are copies, by what the joiner says."""


class Teller:
    """Of one model. `redact` holds whoever asks."""

    def __init__(self, signature: Signature | None, about: About, redact: frozenset[str] = frozenset()) -> None:
        self._rule = about.rule
        self._redact = redact
        self._named = about.columns
        self._places: list[Place] = input_places(signature, about)[:_COLUMNS] if signature is not None else []
        self._score = score_place(signature, about) if signature is not None else None
        outputs = signature.outputs if signature is not None else ()
        self._types = {spec.name: NUMPY[spec.datatype] for spec in outputs}

    @property
    def scoring(self) -> Scoring | None:
        """Where the score is."""
        score, rule = self._score, self._rule
        if score is None:
            return None
        if rule is None:
            return Scoring(score.tensor, score.at)
        kind = self._types.get(score.tensor, np.dtype(np.float64))
        steps = tuple((name, float(np.asarray(threshold, dtype=kind))) for name, threshold in rule.steps)
        return Scoring(score.tensor, score.at, steps, rule.otherwise)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what `Record.inputs` holds."""
        return tuple(place.name for place in self._places)

    def tell(self, prediction: Prediction, wanted: Wanted) -> Told:
        """What is told of `prediction`. Runs on the event loop: as little as possible."""
        hidden = self._redact | wanted.redact if wanted.redact else self._redact
        outputs = [
            _tensor(name, array)
            for name, array in zip(prediction.names, prediction.outputs, strict=True)
            if name not in hidden
        ]
        inputs = prediction.inputs
        rows: list[list[Any]] = []
        sample = None
        digest = ""
        if inputs:
            place = zlib.crc32(prediction.request_id)
            if place < wanted.inputs_below:
                rows = self._rows(inputs, wanted)
                if sum(array.nbytes for array in inputs.values()) <= _HASHED:
                    digest = input_hash(inputs)
            if place < wanted.samples_below:
                sample = Sample(self.shown(inputs, wanted))
        milliseconds = (prediction.answered - prediction.received) * 1e3
        key = prediction.request_id.decode("latin-1")
        return Told(key, prediction.code, milliseconds, prediction.rows, digest, outputs, rows, sample)

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

    def prepared(self, inputs: Mapping[str, Array], made: Mapping[str, Array], wanted: Wanted) -> dict[str, Any]:
        """What preprocessing made of `inputs`, as people may see it: nothing where any of them is redacted, and no
        tensor or column that is redacted by its own name, with or without the step of a pipeline before it."""
        if self.hides(inputs, wanted):
            return dict.fromkeys(made, REDACTED)
        hidden = self._redact | wanted.redact
        told = self.shown(made, wanted)
        return {name: REDACTED if name.rpartition(".")[2] in hidden else value for name, value in told.items()}

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
    if array.size <= VALUES:
        return array.tolist()
    return {"shape": list(array.shape), "first": array.reshape(-1)[:16].tolist()}


def _tensor(name: str, array: Array) -> Tensor:
    flat = array.reshape(-1)
    if flat.size > VALUES:
        # Whole rows where they fit, so that the score's column stays where it is.
        width = array.size // max(len(array), 1)
        if width <= VALUES:
            array = array[:: -(-len(array) // (VALUES // width))]
            flat = array.reshape(-1)
        else:
            flat = flat[:: -(-flat.size // VALUES)]
            array = flat
    if array.dtype.kind == "O":
        return Tensor(name, "", array.shape, [_text(value) for value in flat.tolist()])
    return Tensor(name, array.dtype.str, array.shape, flat.tobytes())


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
