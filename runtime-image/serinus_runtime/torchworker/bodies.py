"""Rows as the bodies that TorchServe handlers know, and their answers as arrays again.

`style` is the handler's: `instances` sends many rows as one request `{"instances": [...]}`; `row` sends each row as a
request of its own, as JSON; `binary` does so with the little-endian bytes of its only input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serinus_runtime.torchworker.frames import DTYPES

STYLES = ("instances", "row", "binary")
Spec = Sequence[Any]
"""Name, datatype and shape of an output."""


class AnswerError(ValueError):
    """What the handler gave does not fit the outputs that model.json declares."""


def bodies(style: str, inputs: Mapping[str, Any], rows: int) -> list[Any]:
    """One body per request: parsed JSON, or bytes. One input is a bare row; more are an object by name."""
    if style == "binary":
        (array,) = inputs.values()
        return [np.ascontiguousarray(array[at]).tobytes() for at in range(rows)]
    if len(inputs) == 1:
        (array,) = inputs.values()
        listed = array.tolist()
    else:
        columns = {name: array.tolist() for name, array in inputs.items()}
        listed = [{name: column[at] for name, column in columns.items()} for at in range(rows)]
    return [{"instances": listed}] if style == "instances" else list(listed)


def arrays(style: str, answers: Sequence[Any], outputs: Sequence[Spec], rows: int) -> list[Any]:
    """The declared outputs from the answers to `bodies`, in order. Raises AnswerError."""
    if style == "instances":
        if len(answers) != 1:
            raise AnswerError(f"one request was sent, and {len(answers)} answers came back")
        listed = _parsed(answers[0])
        if isinstance(listed, dict):
            listed = next((listed[key] for key in ("predictions", "outputs") if key in listed), listed)
        if isinstance(listed, dict):
            return [_array(listed.get(name), datatype, shape, name, rows) for name, datatype, shape in outputs]
        if not isinstance(listed, list) or len(listed) != rows:
            raise AnswerError(
                f"{rows} rows went in and {len(listed) if isinstance(listed, list) else 'no list of'} came back; "
                'answer every request with {"predictions": [...]}, or set "body" to "row" in model.json'
            )
    else:
        if len(answers) != rows:
            raise AnswerError(f"{rows} requests were sent, and {len(answers)} answers came back")
        if (
            style == "binary"
            and len(outputs) == 1
            and all(isinstance(answer, (bytes, bytearray)) for answer in answers)
        ):
            name, datatype, shape = outputs[0]
            return [_raw(answers, datatype, shape, name)]
        listed = [_row(_parsed(answer)) for answer in answers]
    if all(isinstance(row, dict) for row in listed) and listed:
        return [
            _array([row.get(name) for row in listed], datatype, shape, name, rows) for name, datatype, shape in outputs
        ]
    if len(outputs) != 1:
        names = ", ".join(name for name, _, _ in outputs)
        raise AnswerError(f"with several outputs every row's answer must be an object with the members {names}")
    name, datatype, shape = outputs[0]
    return [_array(listed, datatype, shape, name, rows)]


def _parsed(answer: Any) -> Any:
    if hasattr(answer, "tolist"):
        return answer.tolist()
    if isinstance(answer, (bytes, bytearray, str)):
        try:
            return json.loads(answer)
        except ValueError:
            raise AnswerError(f"the answer {bytes(answer[:40]) if not isinstance(answer, str) else answer[:40]!r} is "
                              "not JSON") from None  # fmt: skip
    return answer


def _row(answer: Any) -> Any:
    if isinstance(answer, dict) and isinstance(answer.get("predictions"), list) and len(answer["predictions"]) == 1:
        return answer["predictions"][0]
    return answer


def _raw(answers: Sequence[Any], datatype: str, shape: Sequence[int], name: str) -> Any:
    try:
        made = np.stack([np.frombuffer(answer, DTYPES[datatype]) for answer in answers])
    except (ValueError, TypeError) as error:
        raise AnswerError(f"output {name!r}: the bytes of the answers are not {datatype}: {error}") from None
    return _shaped(made, shape, name, len(answers))


def _array(listed: Any, datatype: str, shape: Sequence[int], name: str, rows: int) -> Any:
    dtype = DTYPES[datatype]
    if listed is None or (isinstance(listed, list) and None in listed):
        raise AnswerError(f"the handler's answer has no member {name!r} for every row")
    try:
        made = np.array(listed, dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise AnswerError(f"output {name!r} is not {datatype} of one shape for every row: {error}") from None
    if dtype.kind == "O" and any(not isinstance(element, str) for element in made.reshape(-1)):
        raise AnswerError(f"output {name!r} is declared BYTES, but holds what is not text")
    return _shaped(made, shape, name, rows)


def _shaped(made: Any, shape: Sequence[int], name: str, rows: int) -> Any:
    # A bare number per row answers for a declared column: [-1, 1].
    wanted = (rows, *shape[1:])
    if made.shape == wanted[: made.ndim] and all(size in (1, -1) for size in wanted[made.ndim :]):
        made = made.reshape(made.shape + (1,) * (len(wanted) - made.ndim))
    elif made.ndim != len(wanted) and wanted.count(-1) <= 1:
        try:
            made = made.reshape(wanted)
        except ValueError:
            raise AnswerError(f"output {name!r} has the shape {list(made.shape)}, declared is {list(shape)}") from None
    return made
