"""A request as every front understands it, and what a front is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from serinus_runtime.datatypes import Array

_NONE: frozenset[str] = frozenset()


class InferRequest:
    """A checked request: arrays for every input of the model, rows along axis 0 (1 where the model has no rows)."""

    __slots__ = ("binary", "form", "id", "inputs", "kind", "outputs", "parameters", "raw", "rows", "wanted")

    def __init__(
        self,
        id: str | None,
        inputs: dict[str, Array],
        rows: int,
        outputs: tuple[str, ...],
        wanted: tuple[str, ...] | None = None,
        binary: frozenset[str] = _NONE,
        form: str = "",
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        """What the engine must give."""
        self.wanted = wanted
        """What the answer holds, where that differs: outputs that rules add, or fewer."""
        self.binary = binary
        """Which of them the answer holds as raw bytes."""
        self.form = form
        """What a `Front` remembers of how it was asked."""
        self.parameters = parameters
        """What the request says about itself: `timeout`, `priority`."""
        self.raw = b""
        """The bytes of the only input, where they are known."""
        self.kind = b""
        """What comes before `raw` in its hash."""

    @property
    def plain(self) -> bool:
        """True: nothing but its numbers makes the answer different from those of its neighbours."""
        return self.id is None and self.wanted is None and not self.binary


Reply = tuple[bytes, bytes, bytes]
"""Body, content type, and whole header lines."""


class Front(Protocol):
    """One way to ask the model: what stands between the bytes of an HTTP request and the batcher."""

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`; `results` are the arrays of its `outputs`, in that order."""
