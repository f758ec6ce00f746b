"""From what a tap tells to what is compared: the work that the pods are spared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serinus_runtime.about import DECISION, UNKNOWN
from serinus_runtime.shadow.records import Record, Scoring, Told

_ROWS = 8
"""Rows of a request whose scores are looked at."""


def understood(told: Told, scoring: Scoring | None) -> Record:
    """A record. Raises ValueError where an output is not what it says."""
    labels: dict[str, list[Any]] = {}
    numbers: dict[str, list[float]] = {}
    scores: list[float] = []
    size = 400 + 32 * sum(map(len, told.inputs)) + (2048 if told.sample is not None else 0)
    for output in told.outputs:
        values: list[Any] = output.data
        if output.type:
            values = np.frombuffer(output.data, dtype=np.dtype(output.type)).tolist()
        size += 32 * len(values) + 64
        if output.type[1:2] == "f":
            numbers[output.name] = values
        else:
            labels[output.name] = values
        if scoring is not None and output.name == scoring.tensor and output.shape:
            width = len(values) // max(output.shape[0], 1)
            if 0 <= scoring.column < width:
                found = values[scoring.column :: width]
                if scoring.steps:
                    labels[DECISION] = [_decision(score, scoring) for score in found]
                scores = found[:_ROWS]
    return Record(
        told.id, told.code, told.ms, told.rows, told.hash, labels, numbers, scores, told.inputs, told.sample, size
    )  # fmt: skip


def _decision(score: float, scoring: Scoring) -> str:
    """The name of the highest threshold that the score reaches."""
    if math.isnan(score):
        return UNKNOWN
    return next((name for name, threshold in scoring.steps if score >= threshold), scoring.otherwise)
