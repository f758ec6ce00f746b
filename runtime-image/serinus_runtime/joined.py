"""What a batch gave, for what is cheaper to make for all of its requests at once than for each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serinus_runtime.datatypes import Array

_encode = msgspec.json.Encoder().encode


class Joined:
    """The `answers` of one batch, arrays of the outputs `names`: row n is the n-th request's, which has no other."""

    def __init__(self, names: Sequence[str], answers: Sequence[Array]) -> None:
        self.names = names
        self.answers = answers
        self.bodies: list[bytes] | None = None
        """Whole bodies of answers, by row."""
        self.logged: list[bytes] | None = None
        """What the prediction log says of the outputs, by row."""
        self._values: dict[int, list[bytes]] = {}

    def values(self, index: int) -> list[bytes]:
        """The values of output `index` as JSON without brackets, by row: `0.25,0.75`."""
        found = self._values.get(index)
        if found is None:
            found = self._values[index] = _by_row(self.answers[index])
        return found


def woven(befores: Sequence[bytes], columns: Sequence[list[bytes]], last: bytes) -> list[bytes]:
    """The outputs of a batch as text, by row: what stands before each value, the value, and at the end `last`.

    `columns` has the values of one output after the other, each by row.
    """
    made: list[bytes] = []
    for before, values in zip(befores, columns, strict=True):
        if made:
            made = [start + before + value for start, value in zip(made, values, strict=True)]
        else:
            made = [before + value for value in values]
    return [each + last for each in made]


def _by_row(array: Array) -> list[bytes]:
    flat = array.reshape(len(array), -1)
    if array.dtype.kind == "O" or not flat.shape[1]:
        return [_encode(row)[1:-1] for row in flat.tolist()]
    # Numbers: a bracket is nothing but a bracket.
    text: bytes = _encode(flat.tolist())
    return text[2:-2].split(b"],[")
