"""What a tap tells, and what the joiner makes of it."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

PATH = b"/tap"
CONTENT_TYPE = b"application/msgpack"
VALUES = 256
"""Values of a tensor that are told."""
ALL = 1 << 32
"""Above every `place`: a threshold that lets every request through."""


class Sample(msgspec.Struct, array_like=True):
    """One request as it came in and as the model saw it, without what is redacted."""

    raw: dict[str, Any]
    prepared: dict[str, Any] = {}
    """Tensors that preprocessing made of it, by name; empty where there is no preprocessing."""


class Record(msgspec.Struct, array_like=True):
    """One answered request, ready to be compared."""

    id: str
    code: int
    ms: float
    """Time in the server, in milliseconds."""
    rows: int = 0
    hash: str = ""
    """Of the decoded inputs; only where they were asked for."""
    labels: dict[str, list[Any]] = {}
    """Outputs that are names or whole numbers, and the decision of the model's rule."""
    numbers: dict[str, list[float]] = {}
    """Outputs that are floating-point numbers."""
    scores: list[float] = []
    """The score of each row, where the model tells which it is."""
    inputs: list[list[Any]] = []
    """Columns of the first rows, in the order of `Page.columns`; only where they were asked for."""
    sample: Sample | None = None
    size: int = 0
    """Bytes that it takes to keep, about."""


class Tensor(msgspec.Struct, array_like=True):
    """An output as a tap tells it: turning it into numbers is the joiner's work, not the pod's."""

    name: str
    type: str
    """NumPy's, such as <f4; empty: `data` is a list of strings."""
    shape: tuple[int, ...]
    data: Any
    """Little-endian bytes of the values, of at most 256 evenly spaced ones."""


class Told(msgspec.Struct, array_like=True):
    """A prediction as a tap tells it; `reading` makes a Record of it."""

    id: str
    code: int
    ms: float
    rows: int
    hash: str
    outputs: list[Tensor]
    inputs: list[list[Any]]
    sample: Sample | None


class Scoring(msgspec.Struct, frozen=True):
    """Where a model's score is, and what follows from it."""

    tensor: str
    column: int
    steps: tuple[tuple[str, float], ...] = ()
    """Names and thresholds, highest first, in the score's own precision; none where there is no rule."""
    otherwise: str = ""


class Page(msgspec.Struct):
    """What a tap has seen since a cursor."""

    process: str
    """Other than before: the process is new, and so are its cursors."""
    revision: str
    next: int
    """The cursor to ask with next."""
    lost: int
    """Records between the cursor and the first of these that are no longer kept."""
    more: bool
    """There is more to read at once."""
    columns: tuple[str, ...]
    scoring: Scoring | None
    records: list[Told]


def place(request_id: str) -> int:
    """Where a request lies between 0 and 2**32: the same in all pods, so that all choose the same ones."""
    return zlib.crc32(request_id.encode("latin-1", "replace"))
