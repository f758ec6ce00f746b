"""Requests of a smoke test: read from JSON that people wrote or the prediction log holds, or made from metadata.

A sample is a JSON object, one per line or in a list:

- a request of the Open Inference Protocol: `{"inputs": [{"name", "shape", "datatype", "data"}, ...]}`;
- a line of the prediction log: `{"inputs": {"NAME": [[...]]}, ...}`; datatypes come from the model's metadata;
- any other request: `{"path": "/v1/chat/completions", "body": {...}}`.

The first two may have `"expected": {"OUTPUT": [...]}`: values that the answer must hold, within the tolerance.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 1000
"""Samples that are taken."""
MOST_BYTES = 1 << 20
FEWEST_COMPARED = 20
"""With fewer, a share that differs says next to nothing: no difference among 20 leaves 14 % open (at 95 %)."""
REDACTED = "[redacted]"
MOST_VALUES = 1 << 20
"""Elements of a generated input."""


class SamplesError(Exception):
    """The samples cannot be used; says which and what to write."""


@dataclass(frozen=True)
class Sample:
    """One request."""

    body: Mapping[str, Any]
    path: str = ""
    """Where to post it; empty: the model's infer path."""
    expected: Mapping[str, Sequence[Any]] | None = None
    """Flat values by output."""


@dataclass(frozen=True)
class Tensor:
    """An input as `/v2/models/M` describes it; -1 is an open dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def parse(text: str, inputs: Sequence[Tensor] | None = None) -> list[Sample]:
    """The samples in `text`.

    Args:
        inputs: the model's inputs, where they are known: needed for lines of the prediction log.

    Raises:
        SamplesError: not JSON, not a sample, too many, or none that is not redacted.
    """
    if len(text) > MOST_BYTES:
        raise SamplesError(f"more than {MOST_BYTES} bytes of samples: write fewer")
    entries = _entries(text)
    if len(entries) > MOST:
        raise SamplesError(f"more than {MOST} samples: write fewer")
    found = [_sample(where, entry, inputs) for where, entry in entries]
    kept = [sample for sample in found if sample is not None]
    if not kept:
        raise SamplesError(
            "all samples are redacted: record some without redaction, or write them by hand"
            if found
            else "there is no sample: write one JSON object per line"
        )
    return kept


def enough(samples: Sequence[Sample], where: str) -> None:
    """Refuses a gate on parity that has too little to go by.

    Raises:
        SamplesError: there are fewer than `FEWEST_COMPARED`; says what to write.
    """
    if (count := len(samples)) < FEWEST_COMPARED:
        raise SamplesError(
            f"smokeTest.maxDisagreement needs at least {FEWEST_COMPARED} samples, {where} has {count} without redacted "
            "values: write more, leave samples out to have them generated, or remove maxDisagreement, and differences "
            "from the live revision are reported only"
        )


def _entries(text: str) -> list[tuple[str, Any]]:
    if text.lstrip()[:1] == "[":
        try:
            return [(f"sample {number}", entry) for number, entry in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise SamplesError(f"the list of samples is not JSON: {error}") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise SamplesError(
                    f"line {number} is not JSON: {error}; write one object per line, or a list"
                ) from error
    return found


def _sample(where: str, entry: Any, known: Sequence[Tensor] | None) -> Sample | None:
    """A sample; None where its values are redacted or were too many to be recorded."""
    if not isinstance(entry, dict):
        raise SamplesError(f'{where}: write an object such as {{"inputs": [...]}}')
    if "body" in entry:
        path = entry.get("path")
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(entry["body"], dict):
            raise SamplesError(f'{where}: write {{"path": "/...", "body": {{...}}}}')
        return Sample(entry["body"], path)
    expected = entry.get("expected")
    if expected is not None:
        if not isinstance(expected, dict) or not all(isinstance(values, list) for values in expected.values()):
            raise SamplesError(f'{where}: write expected as {{"OUTPUT": [values]}}')
        expected = {name: flat(values) for name, values in expected.items()}
    inputs = entry.get("inputs")
    if isinstance(inputs, list):
        return Sample({"inputs": inputs}, expected=expected)
    if not isinstance(inputs, dict) or not inputs:
        raise SamplesError(f"{where}: inputs are missing; write a request of the Open Inference Protocol")
    if _redacted(inputs) or not all(isinstance(values, list) for values in inputs.values()):
        return None
    kinds = {tensor.name: tensor.datatype for tensor in known or ()}
    if missing := inputs.keys() - kinds.keys():
        raise SamplesError(
            f"{where}: the model's metadata has no input {min(missing)!r}: write inputs with name, shape and datatype"
        )
    tensors = [
        {"name": name, "datatype": kinds[name], "shape": _shape(values), "data": flat(values)}
        for name, values in inputs.items()
    ]
    return Sample({"inputs": tensors}, expected=expected)


def _redacted(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_redacted, value.values()))
    return any(map(_redacted, value)) if isinstance(value, list) else value == REDACTED


def _shape(values: Any) -> list[int]:
    shape = []
    while isinstance(values, list):
        shape.append(len(values))
        values = values[0] if values else None
    return shape


def flat(values: Any) -> list[Any]:
    """The elements of nested lists, in order."""
    if not isinstance(values, list):
        return [values]
    found: list[Any] = []
    for value in values:
        found.extend(flat(value) if isinstance(value, list) else [value])
    return found


def inputs_of(metadata: Any) -> list[Tensor]:
    """The inputs that a model's metadata describes.

    Raises:
        SamplesError: it describes none.
    """
    try:
        found = [
            Tensor(str(each["name"]), str(each["datatype"]), tuple(int(size) for size in each["shape"]))
            for each in metadata["inputs"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise SamplesError("the model's metadata describes no inputs: write samples") from error
    if not found:
        raise SamplesError("the model's metadata describes no inputs: write samples")
    return found


def generate(inputs: Sequence[Tensor], count: int, seed: int = 0) -> list[Sample]:
    """Requests of one row: the first of zeros, as in the warm-up, the others of numbers that differ.

    Numbers are normally distributed; whole numbers stay 0, because they are often indices of a table whose size nobody
    tells. Open dimensions have size 1.

    Raises:
        SamplesError: an input is too large to be made up.
    """
    chance = random.Random(seed)  # noqa: S311 - numbers for a model, no secret
    return [
        Sample({"inputs": [_tensor(tensor, chance if number else None) for tensor in inputs]})
        for number in range(count)
    ]


def _tensor(tensor: Tensor, chance: random.Random | None) -> dict[str, Any]:
    shape = [1 if size == -1 else size for size in tensor.shape]
    size = 1
    for each in shape:
        size *= each
    if size > MOST_VALUES:
        raise SamplesError(f"input {tensor.name} has {size} values: write samples")
    data: list[Any]
    if tensor.datatype == "BYTES":
        data = [""] * size
    elif tensor.datatype == "BOOL":
        data = [chance is not None and chance.random() < 0.5 for _ in range(size)]
    elif tensor.datatype.startswith(("FP", "BF")):
        data = [round(chance.gauss(0.0, 1.0), 4) if chance else 0.0 for _ in range(size)]
    else:
        data = [0] * size
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}
