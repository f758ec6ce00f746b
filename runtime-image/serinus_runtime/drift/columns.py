"""A model's inputs and outputs as flat columns with names, one value a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from serinus_runtime.about import About, has_rows
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec

SCORE = "score"
_WIDEST_OUTPUT = 16


class Place:
    """Where a column is: element `at` of every row of the tensor `tensor`."""

    __slots__ = ("at", "name", "tensor", "text")

    def __init__(self, name: str, tensor: str, at: int, *, text: bool) -> None:
        self.name = name
        self.tensor = tensor
        self.at = at
        self.text = text


def input_places(signature: Signature, about: About) -> list[Place]:
    """The columns of the inputs: named ones by their names, others as `input` or `input[3]`."""
    if not has_rows(signature):
        return []
    return [place for spec in signature.inputs for place in _places(spec, about.columns.get(spec.name, ()))]


def output_places(signature: Signature, about: About) -> list[Place]:
    """The columns of the outputs, and first the score, where the model's rule or the shape tells which it is.

    Outputs of more than 16 elements a row, such as embeddings, are left out.
    """
    if not has_rows(signature):
        return []
    score = score_place(signature, about)
    found = [] if score is None else [score]
    for spec in signature.outputs:
        if score is not None and spec.name == score.tensor:
            continue
        places = list(_places(spec, ()))
        if len(places) <= _WIDEST_OUTPUT:
            found += places
    return found


def score_place(signature: Signature, about: About) -> Place | None:
    """Which column is the score: the rule's, else that of the only floating-point output of one or two columns."""
    if not has_rows(signature):
        return None
    if about.rule is not None:
        spec = next(spec for spec in signature.outputs if spec.name == about.rule.output)
        at = about.rule.column
    else:
        floats = [spec for spec in signature.outputs if NUMPY[spec.datatype].kind == "f"]
        if len(floats) != 1:
            return None
        spec, at = floats[0], None
    width = _width(spec)
    if at is None:
        at = {1: 0, 2: 1}.get(width, -1)
    return Place(SCORE, spec.name, at, text=False) if at >= 0 and (at < width or not width) else None


def flatten(batches: Iterable[Mapping[str, Array]], places: Sequence[Place]) -> dict[str, Array]:
    """Every column of `places` as an array of its rows in all `batches`, in order where their shapes are the same.

    Columns that the tensors do not have are left out. Tensors are joined before they are cut: thousands of batches of
    one row cost little more than one batch of thousands.
    """
    shapes: dict[str, dict[tuple[int, ...], list[Array]]] = {place.tensor: {} for place in places}
    for batch in batches:
        for name, found in shapes.items():
            if (tensor := batch.get(name)) is not None and len(tensor):
                found.setdefault(tensor.shape[1:], []).append(tensor)
    tables = {
        name: [(joined := np.concatenate(parts)).reshape(len(joined), -1) for parts in found.values()]
        for name, found in shapes.items()
    }
    made: dict[str, Array] = {}
    for place in places:
        parts = [table[:, place.at] for table in tables[place.tensor] if place.at < table.shape[1]]
        if parts:
            made[place.name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return made


def _width(spec: TensorSpec) -> int:
    """Elements of a row; 0 when the model does not say."""
    return math.prod(spec.shape[1:]) if spec.shape and -1 not in spec.shape[1:] else 0


def _places(spec: TensorSpec, names: Sequence[str]) -> Iterator[Place]:
    text = NUMPY[spec.datatype].kind == "O"
    width = len(names) or _width(spec)
    for at in range(width):
        name = names[at] if names else spec.name if width == 1 else f"{spec.name}[{at}]"
        yield Place(name, spec.name, at, text=text)
