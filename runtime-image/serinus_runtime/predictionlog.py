"""One JSON line per prediction: what was asked (as a hash), what was answered, by which bytes, in how much time.

A line costs the event loop a few microseconds; a thread of its own does the writing, and makes the lines of large
requests. (A thread that made all lines would fight the loop for the interpreter, and cost twice as much.) A log that
cannot keep up, or a disk that is full, costs lines, which are counted, and never a request.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np

from serinus_runtime import logs
from serinus_runtime.datatypes import Array
from serinus_runtime.fast import times
from serinus_runtime.identity import Identity
from serinus_runtime.sinks import Sink, Stopping

OFF = "off"
REDACTED = "[redacted]"
_INLINE_BYTES = 16 << 10
"""Requests with more bytes of arrays than this are left to the thread as they are."""
_MAX_VALUES = 256
"""Outputs, and sampled inputs, with more values than this are told by their shape only."""


class Prediction:
    """One answered request. Times are seconds on the monotonic clock; those that were never reached are 0.

    `names` are those of `outputs`, and empty when there are none.
    """

    __slots__ = (
        "answered", "client", "code", "finished", "inputs", "names", "outputs", "queued", "received", "request_id",
        "rows", "started", "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        code: int,
        request_id: bytes,
        received: float,
        queued: float,
        started: float,
        finished: float,
        answered: float,
        rows: int,
        inputs: Mapping[str, Array] | None,
        names: Sequence[str],
        outputs: Sequence[Array],
        client: str = "",
        trace_id: bytes = b"",
    ) -> None:
        self.code = code
        self.request_id = request_id
        self.received = received
        self.queued = queued
        self.started = started
        self.finished = finished
        self.answered = answered
        self.rows = rows
        self.inputs = inputs
        self.names = names
        self.outputs = outputs
        self.client = client
        self.trace_id = trace_id


class PredictionLog:
    """Writes predictions to `sink`.

    `sample` is the share of requests, 0 to 1, that have a line, chosen by their id: every version that answers a
    request makes the same choice. `payloads` is the share of lines whose inputs are written too; `redact` names inputs
    and columns of inputs that never are. `columns` names the elements of vectors. At most `lines` and `size` bytes of
    arrays wait.
    """

    def __init__(
        self,
        sink: Sink,
        identity: Identity,
        *,
        sample: float = 1.0,
        payloads: float = 0.0,
        redact: frozenset[str] = frozenset(),
        columns: Mapping[str, Sequence[str]] | None = None,
        lines: int = 16384,
        size: int = 32 << 20,
    ) -> None:
        self.dropped = 0
        self._sink = sink
        self._below = round(sample * 2**32) if sample < 1.0 else None
        self._payloads = payloads
        self._redact = redact
        self._columns = columns or {}
        self._lines = lines
        self._size = size
        self._waiting: deque[tuple[bytes | Prediction | Callable[[], bytes], int]] = deque()
        self._added = 0
        self._taken = 0
        self._failed = 0
        self._told = -1e9
        self._wall = time.time() - time.monotonic()
        self._random = random.Random()  # noqa: S311 - which payloads are kept is no secret
        who = msgspec.json.encode({name: value for name, value in msgspec.structs.asdict(identity).items() if value})
        self._tail = (b"," if len(who) > 2 else b"") + who[1:] + b"\n"
        self._encoder = msgspec.json.Encoder()
        self._patience = 5.0
        self._wake = threading.Event()
        self._stopping = Stopping()
        self._writer = threading.Thread(target=self._work, name="serinus-predictions", daemon=True)
        self._writer.start()

    def add(self, prediction: Prediction) -> None:
        """Takes a prediction, or drops it when too much waits. Called on the event loop; never blocks."""
        if self._below is not None and zlib.crc32(prediction.request_id) >= self._below:
            return
        waiting = self._waiting
        size = 0
        for array in prediction.outputs:
            size += array.nbytes
        if prediction.inputs is not None:
            for array in prediction.inputs.values():
                size += array.nbytes
        if len(waiting) >= self._lines or self._added - self._taken + size > self._size:
            self.dropped += 1
            return
        item: bytes | Prediction = prediction
        if size <= _INLINE_BYTES:
            try:
                item = self.line(prediction)
            except Exception as error:
                self._trouble(1, error)
                return
            size = len(item)
        self._added += size
        waiting.append((item, size))
        if not self._wake.is_set():
            self._wake.set()

    def put(self, request_id: bytes, line: bytes | Callable[[], bytes], size: int) -> None:
        """Takes a line that was made elsewhere, or what makes it and keeps `size` bytes until then. Never blocks."""
        if self._below is not None and zlib.crc32(request_id) >= self._below:
            return
        if len(self._waiting) >= self._lines or self._added - self._taken + size > self._size:
            self.dropped += 1
            return
        self._added += size
        self._waiting.append((line, size))
        if not self._wake.is_set():
            self._wake.set()

    @property
    def tail(self) -> bytes:
        """The end of every line, from the comma on: who answered."""
        return self._tail

    def __len__(self) -> int:
        """Lines that wait."""
        return len(self._waiting)

    @property
    def written(self) -> int:
        """Lines that arrived."""
        return self._sink.written

    @property
    def lost(self) -> int:
        """Lines that were dropped, or could not be written."""
        return self.dropped + self._failed + self._sink.failed

    def close(self, patience: float = 5.0) -> None:
        """Writes what waits, for at most `patience` seconds."""
        self._patience = patience
        self._stopping.ask()
        self._wake.set()
        self._writer.join(patience)

    def line(self, prediction: Prediction) -> bytes:
        """The line for one prediction, with its newline."""
        parts = [
            times(
                self._wall,
                prediction.request_id,
                prediction.code,
                prediction.received,
                prediction.queued,
                prediction.started,
                prediction.finished,
                prediction.answered,
            )
        ]
        encode = self._encoder.encode
        inputs = prediction.inputs
        if inputs is not None:
            parts.append(b',"rows":%d,"input_hash":"%b"' % (prediction.rows, input_hash(inputs).encode()))
            if self._payloads and self._random.random() < self._payloads:
                parts += (b',"inputs":', encode({name: self._shown(name, array) for name, array in inputs.items()}))
        if prediction.names:
            before = b',"outputs":{'
            for name, array in zip(prediction.names, prediction.outputs, strict=True):
                parts += (before, _member(name), encode(REDACTED if name in self._redact else _values(array)))
                before = b","
            parts.append(b"}")
        parts.append(self._tail)
        if prediction.client:
            parts.insert(-1, b',"client":"%b"' % prediction.client.encode())
        if prediction.trace_id:
            parts.insert(-1, b',"trace_id":"%b"' % prediction.trace_id)
        return b"".join(parts)

    def _shown(self, name: str, array: Array) -> object:
        if name in self._redact:
            return REDACTED
        hidden = [at for at, column in enumerate(self._columns.get(name, ())) if column in self._redact]
        if not hidden or array.ndim < 2 or array.size > _MAX_VALUES:
            return _values(array)
        rows = array.reshape(len(array), -1).tolist()
        for row in rows:
            for at in hidden:
                if at < len(row):
                    row[at] = REDACTED
        return rows

    def _work(self) -> None:
        while True:
            self._wake.wait()
            # Whoever writes line by line pays a system call for each.
            self._stopping.wait(self._sink.gather_seconds)
            self._wake.clear()
            self._write_waiting()
            if self._stopping.asked and not self._waiting:
                break
        self._sink.close(self._patience)

    def _write_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            lines: list[bytes] = []
            size = 0
            while waiting and size < self._sink.batch_bytes:
                item, held = waiting.popleft()
                self._taken += held
                try:
                    if isinstance(item, Prediction):
                        item = self.line(item)
                    lines.append(item if isinstance(item, bytes) else item())
                    size += len(lines[-1])
                except Exception as error:
                    self._trouble(1, error)
            if not lines:
                continue
            try:
                self._sink.write(lines, self._stopping)
            except OSError as error:
                self._trouble(0, error)

    def _trouble(self, lines: int, error: Exception) -> None:
        self._failed += lines
        if time.monotonic() - self._told >= 60.0:
            self._told = time.monotonic()
            logs.event("error", "the prediction log cannot be written", error=str(error)[:300])


def input_hash(inputs: Mapping[str, Array]) -> str:
    """blake2b (16 bytes, hex) of names, types, shapes and values, the inputs in the order of their names."""
    digest: blake2b | None = None
    for name in sorted(inputs) if len(inputs) > 1 else inputs:
        array = inputs[name]
        if digest is None:
            digest = _begun(name, array.dtype.char, array.shape).copy()
        else:
            digest.update(_kind(name, array.dtype.char, array.shape))
        if array.dtype.kind == "O":
            digest.update(msgspec.json.encode(array.tolist()))
        else:
            digest.update((array if array.flags.c_contiguous else np.ascontiguousarray(array)).data)
    return "" if digest is None else digest.hexdigest()


@lru_cache(maxsize=1024)
def _begun(name: str, char: str, shape: tuple[int, ...]) -> blake2b:
    """A hash that has seen the first input's kind. To be copied: that is half of what beginning one costs."""
    return blake2b(_kind(name, char, shape), digest_size=16)


def _kind(name: str, char: str, shape: tuple[int, ...]) -> bytes:
    return f"{name}\0{np.dtype(char).str}\0{shape}\0".encode()


@lru_cache(maxsize=1024)
def _member(name: str) -> bytes:
    return msgspec.json.encode(name) + b":"


def _values(array: Array) -> object:
    return array.tolist() if array.size <= _MAX_VALUES else {"shape": list(array.shape)}


def preprocessing_hash(directory: Path) -> str:
    """`preprocessing_hash` or `preprocessingHash` of the model's `model.json`, else `sha256:` and hex of the file that
    it names in `preprocess`; empty when it names none."""
    try:
        told = msgspec.json.decode((directory / "model.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(told, dict):
        return ""
    found = told.get("preprocessing_hash", told.get("preprocessingHash", ""))
    if found and isinstance(found, str):
        return found[:200]
    file = told.get("preprocess")
    try:
        if isinstance(file, str) and file and Path(file).name == file:
            return f"sha256:{hashlib.sha256((directory / file).read_bytes()).hexdigest()}"
    except OSError:
        pass
    return ""
