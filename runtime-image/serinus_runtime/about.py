"""What a model directory's `model.json` says beside the graph: names of columns, and the rule from score to decision.

Only `features`, `thresholds` and `decision` are read; everything else in the file belongs to its author. The file lies
in the model directory, so the model's digest covers it, and a decision can be traced to the rule that was in force.
What cannot be used is told in the log and left out: it never keeps a model from being served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serinus_runtime import logs
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec

FILE = "model.json"
DECISION = "decision"
"""The name of the output that a rule adds."""
UNKNOWN = "unknown"
"""The decision for a score that is not a number."""
_MAX_BYTES = 1 << 20
_MAX_COLUMNS = 10_000


class Rule(msgspec.Struct, frozen=True):
    """Turns a score into a decision: the name of the highest threshold that the score reaches, else `otherwise`."""

    output: str
    """The model's output that holds the score."""
    column: int | None
    """Which of its columns; None: the only one, or the second of two (the positive class)."""
    steps: tuple[tuple[str, float], ...]
    """Names and thresholds, highest first."""
    otherwise: str

    def scores(self, output: Array) -> Array:
        """One score per row of `output`. Raises ValueError when the rule does not say which column it is."""
        table = output.reshape(len(output), -1)
        width = table.shape[1]
        column = self.column if self.column is not None else {1: 0, 2: 1}.get(width, -1)
        if not 0 <= column < width:
            raise ValueError(f"the decision rule needs a column of output {self.output!r}, which has {width} of them")
        return table[:, column]

    def decide(self, scores: Array) -> Array:
        """The decision of every score, as BYTES. A threshold is compared in the score's own precision."""
        decisions = np.full(scores.shape, self.otherwise, dtype=object)
        for name, threshold in reversed(self.steps):
            decisions[scores >= np.asarray(threshold, dtype=scores.dtype)] = name
        decisions[np.isnan(scores.astype(np.float64))] = UNKNOWN
        return decisions

    @property
    def names(self) -> list[str]:
        """Every decision there can be."""
        return list(dict.fromkeys([*(name for name, _ in self.steps), self.otherwise, UNKNOWN]))


class About(msgspec.Struct, frozen=True):
    """What is known of a model beside its signature."""

    columns: dict[str, tuple[str, ...]] = {}
    """For inputs that are vectors with named elements: the names, in order."""
    rule: Rule | None = None


def has_rows(signature: Signature) -> bool:
    """True when axis 0 of every input and output is the row: batched, or fixed at the same number everywhere."""
    if signature.batched:
        return True
    sizes = {spec.shape[:1] for spec in (*signature.inputs, *signature.outputs)}
    return len(sizes) == 1 and bool(signature.inputs) and all(size and size[0] > 0 for size in sizes)


def read(directory: Path, signature: Signature) -> About:
    """What `model.json` in `directory` says about a model with `signature`; empty when there is none."""
    path = directory / FILE
    try:
        if not path.is_file():
            return About()
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")  # noqa: TRY301
        told = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        _ignored("the file", error)
        return About()
    columns: dict[str, tuple[str, ...]] = {}
    rule: Rule | None = None
    try:
        columns = _columns(told.get("features"), signature)
    except ValueError as error:
        _ignored("features", error)
    try:
        rule = _rule(told.get("thresholds"), told.get(DECISION), signature)
    except ValueError as error:
        _ignored("thresholds", error)
    return About(columns, rule)


def _ignored(what: str, error: Exception) -> None:
    logs.event("warning", f"{what} of {FILE} cannot be used and is ignored", why=str(error)[:300])


def _columns(told: object, signature: Signature) -> dict[str, tuple[str, ...]]:
    if told is None or not has_rows(signature):
        return {}
    if isinstance(told, Mapping):
        named = msgspec.convert(told, dict[str, tuple[str, ...]])
    else:
        names = msgspec.convert(told, tuple[str, ...])
        # Names that are inputs of their own need no place in a vector.
        if set(names) <= {spec.name for spec in signature.inputs}:
            return {}
        fitting = [spec for spec in signature.inputs if len(spec.shape) == 2 and spec.shape[1] in (-1, len(names))]
        exact = [spec for spec in fitting if spec.shape[1] == len(names)] or fitting
        if len(exact) != 1:
            raise ValueError(f"{len(names)} names fit {len(exact)} inputs; write an object: input to names")
        named = {exact[0].name: names}
    specs = {spec.name: spec for spec in signature.inputs}
    for name, names in named.items():
        spec = specs.get(name)
        if spec is None or len(spec.shape) != 2 or spec.shape[1] not in (-1, len(names)) or not names:
            raise ValueError(f"input {name!r} is not a vector of {len(names)} elements")
    every = [name for spec in signature.inputs for name in named.get(spec.name, (spec.name,))]
    if len(set(every)) != len(every):
        raise ValueError("a column name comes twice")
    if len(every) > _MAX_COLUMNS:
        raise ValueError(f"there are more than {_MAX_COLUMNS} columns")
    return named


def _rule(thresholds: object, told: object, signature: Signature) -> Rule | None:
    if thresholds is None:
        return None
    steps = msgspec.convert(thresholds, dict[str, float])
    if not steps or not all(name and math.isfinite(value) for name, value in steps.items()):
        raise ValueError("thresholds must be an object of names and finite numbers")
    extra = msgspec.convert(told or {}, _Told)
    if any(spec.name == DECISION for spec in signature.outputs):
        raise ValueError(f"the model has an output {DECISION!r} of its own")
    if not has_rows(signature):
        raise ValueError("the model does not work in rows")
    spec = _scored(extra.output, signature)
    width = math.prod(spec.shape[1:]) if spec.shape and -1 not in spec.shape[1:] else None
    if width is not None and not (0 <= extra.column < width if extra.column is not None else width in (1, 2)):
        raise ValueError(f"say in {DECISION}.column which of the {width} columns of output {spec.name!r} is the score")
    ordered = tuple(sorted(steps.items(), key=lambda step: -step[1]))
    return Rule(spec.name, extra.column, ordered, extra.otherwise)


def _scored(name: str | None, signature: Signature) -> TensorSpec:
    found = [
        spec for spec in signature.outputs if NUMPY[spec.datatype].kind == "f" and (name is None or spec.name == name)
    ]
    if len(found) != 1:
        raise ValueError(f"name the output with the score in {DECISION}.output: {len(found)} outputs would do")
    return found[0]


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    output: str | None = None
    column: int | None = None
    otherwise: str = "allow"
