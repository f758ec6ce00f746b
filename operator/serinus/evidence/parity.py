"""Compares answers of the Open Inference Protocol: with expected values, and with another version's answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serinus.evidence.samples import flat

SHOWN = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Comparison:
    """Two answers to one request."""

    difference: str | None = None
    """The first difference, as a sentence; None where they agree."""
    largest: float | None = None
    """Largest difference of two numbers."""

    @property
    def agrees(self) -> bool:
        return self.difference is None


def outputs_of(answer: Any) -> dict[str, tuple[tuple[int, ...], list[Any]]] | None:
    """Shape and flat values by output; None where the answer is not one of the Open Inference Protocol."""
    try:
        return {
            str(each["name"]): (tuple(int(size) for size in each["shape"]), flat(each["data"]))
            for each in answer["outputs"]
        }
    except (KeyError, TypeError, ValueError):
        return None


def same(mine: Any, other: Any, absolute: float, relative: float) -> bool:
    """Whether two values are the same: numbers within absolute + relative * |other|; NaN is like NaN."""
    if isinstance(mine, bool) or isinstance(other, bool) or not _numbers(mine, other):
        return bool(mine == other)
    if math.isnan(mine) or math.isnan(other):
        return math.isnan(mine) and math.isnan(other)
    if math.isinf(mine) or math.isinf(other):
        return bool(mine == other)
    return bool(abs(mine - other) <= absolute + relative * abs(other))


def compare_values(
    name: str, mine: Sequence[Any], other: Sequence[Any], absolute: float, relative: float, whose: str
) -> Comparison:
    """Flat values of the output `name` beside those of `whose`."""
    if len(mine) != len(other):
        return Comparison(f"output {name} has {len(mine)} values, {whose} {len(other)}")
    largest: float | None = None
    difference: str | None = None
    for index, (left, right) in enumerate(zip(mine, other, strict=True)):
        if _numbers(left, right) and math.isfinite(left) and math.isfinite(right):
            largest = max(largest or 0.0, float(abs(left - right)))
        if difference is None and not same(left, right, absolute, relative):
            difference = f"output {name}[{index}] is {_shown(left)}, {whose} {_shown(right)}"
    return Comparison(difference, largest)


def compare_answers(candidate: Any, live: Any, absolute: float, relative: float) -> Comparison:
    """The candidate's whole answer beside the live revision's: the same outputs, shapes and values.

    Answers of another form than the Open Inference Protocol's must be equal.
    """
    mine, other = outputs_of(candidate), outputs_of(live)
    if mine is None or other is None:
        return Comparison(None if candidate == live else "the answers differ")
    if mine.keys() != other.keys():
        return Comparison(f"the candidate has the outputs {_names(mine)}, the live revision {_names(other)}")
    largest: float | None = None
    difference: str | None = None
    for name, (shape, values) in mine.items():
        if shape != other[name][0]:
            found = Comparison(f"output {name} has shape {list(shape)}, the live revision's {list(other[name][0])}")
        else:
            found = compare_values(name, values, other[name][1], absolute, relative, "live")
        difference = difference or found.difference
        if found.largest is not None:
            largest = max(largest or 0.0, found.largest)
    return Comparison(difference, largest)


def compare_expected(
    answer: Any, expected: Mapping[str, Sequence[Any]], absolute: float, relative: float
) -> Comparison:
    """An answer beside the values that somebody wrote down for it."""
    found = outputs_of(answer)
    if found is None:
        return Comparison("the answer has no outputs")
    largest: float | None = None
    for name, values in expected.items():
        if name not in found:
            return Comparison(f"output {name} is missing; there are {_names(found)}")
        result = compare_values(name, found[name][1], values, absolute, relative, "expected")
        if result.difference is not None:
            return result
        if result.largest is not None:
            largest = max(largest or 0.0, result.largest)
    return Comparison(None, largest)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _names(outputs: Mapping[str, Any]) -> str:
    return ", ".join(sorted(outputs)) or "none"
