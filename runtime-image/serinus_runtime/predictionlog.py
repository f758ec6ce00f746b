"""One JSON line per prediction: what was asked (as a hash), what was answered, by which bytes, in how much time.

A line costs the event loop about a microsecond; a thread of its own does the writing, and makes the lines of large
requests. (A thread that made all lines would fight the loop for the interpreter, and cost twice as much.) The lines of
small requests are put into one buffer, and the thread gets them together, once per tick of the loop. A log that cannot
keep up, or a disk that is full, costs lines, which are counted, and never a request.
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
from pathlib import Path

import msgspec

from serinus_runtime import logs
from serinus_runtime.datatypes import Array
from serinus_runtime.fast import add_line, line
from serinus_runtime.identity import Identity
from serinus_runtime.inputhash import input_hash
from serinus_runtime.joined import Joined, woven
from serinus_runtime.sinks import Sink, Stopping

OFF = "off"
REDACTED = "[redacted]"
INLINE_BYTES = 16 << 10
"""Requests with more bytes of arrays than this are left to the thread as they are."""
_MAX_VALUES = 256
"""Outputs, and sampled inputs, with more values than this are told by their shape only."""


class Prediction:
    """One answered request. Times are seconds on the monotonic clock; those that were never reached are 0.

    `names` are those of `outputs`, and empty when there are none.
    """

    __slots__ = (
        "answered", "client", "code", "finished", "inputs", "names", "outputs", "outputs_text", "queued", "received",
        "request_id", "rows", "started", "trace_id",
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
        outputs_text: bytes = b"",
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
        self.outputs_text = outputs_text
        """What the line says of the outputs, where that is known: see `PredictionLog.outputs`."""

    def nbytes(self) -> int:
        """Bytes of the arrays that it keeps alive."""
        size = 0
        for array in self.outputs:
            size += array.nbytes
        if self.inputs is not None:
            for array in self.inputs.values():
                size += array.nbytes
        return size


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
        self._waiting: deque[tuple[bytes | bytearray | Prediction | Callable[[], bytes], int, int]] = deque()
        """Lines or what makes one; how many lines that is; bytes that they hold until they are written."""
        self._added = 0
        self._taken = 0
        self._added_lines = 0
        self._taken_lines = 0
        self._block = bytearray()
        """Lines that the thread does not know of yet."""
        self._block_lines = 0
        self._block_due = False
        self._block_bytes = sink.batch_bytes
        self.plain = not payloads
        """True: no line shows inputs, so that `told` can make them."""
        self.soon: Callable[[Callable[[], None]], object] | None = None
        """Calls back when this tick's requests are all answered; None: nobody knows when that is."""
        self._failed = 0
        self._told = -1e9
        self._wall = time.time() - time.monotonic()
        self._random = random.Random()  # noqa: S311 - which payloads are kept is no secret
        who = msgspec.json.encode({name: value for name, value in msgspec.structs.asdict(identity).items() if value})
        self._tail = (b"," if len(who) > 2 else b"") + who[1:] + b"\n"
        self._encoder = msgspec.json.Encoder()
        self._patience = 5.0
        self._wake = threading.Event()
        self._woken = False
        """What is added from now on will be seen by the thread without waking it."""
        self._stopping = Stopping()
        self._writer = threading.Thread(target=self._work, name="serinus-predictions", daemon=True)
        self._writer.start()

    def add(self, prediction: Prediction) -> None:
        """Takes a prediction, or drops it when too much waits. Called on the event loop; never blocks."""
        if self._below is not None and zlib.crc32(prediction.request_id) >= self._below:
            return
        size = prediction.nbytes()
        if self._full(size):
            return
        item: bytes | Prediction = prediction
        if size <= INLINE_BYTES:
            try:
                item = self.line(prediction)
            except Exception as error:
                self._trouble(1, error)
                return
            size = len(item)
        self._enqueue(item, size)

    def told(
        self,
        code: int,
        request_id: bytes,
        received: float,
        queued: float,
        started: float,
        finished: float,
        answered: float,
        rows: int,
        kind: bytes,
        raw: bytes,
        middle: bytes,
    ) -> None:
        """`add` for the common request: one input, whose bytes are `raw`; `kind` comes before them in its hash (see
        inputhash). `middle` is what the line says between that hash and who answered."""
        if self._below is not None and zlib.crc32(request_id) >= self._below:
            return
        if self._full(len(raw)):
            return
        block = self._block
        before = len(block)
        try:
            add_line(
                block, self._wall, request_id, code, received, queued, started, finished, answered, rows, kind, raw,
                middle, self._tail,
            )  # fmt: skip
        except Exception as error:
            self._trouble(1, error)
            return
        size = len(block)
        self._added += size - before
        self._added_lines += 1
        self._block_lines += 1
        if self.soon is None or size >= self._block_bytes:
            self.flush()
        elif not self._block_due:
            self._block_due = True
            self.soon(self._on_tick)

    def put(self, request_id: bytes, line: bytes | Callable[[], bytes], size: int) -> None:
        """Takes a line that was made elsewhere, or what makes it and keeps `size` bytes until then. Never blocks."""
        if self._below is not None and zlib.crc32(request_id) >= self._below:
            return
        if not self._full(size):
            self._enqueue(line, size)

    def flush(self) -> None:
        """Gives the thread what it does not know of yet. Called on the event loop."""
        if self._block_lines:
            block, lines = self._block, self._block_lines
            self._block, self._block_lines = bytearray(), 0
            self._waiting.append((block, lines, len(block)))
            self._rouse()

    def _on_tick(self) -> None:
        self._block_due = False
        self.flush()

    def _full(self, size: int) -> bool:
        """True when `size` bytes more are too much: the line is counted as dropped."""
        if self._added_lines - self._taken_lines < self._lines and self._added - self._taken + size <= self._size:
            return False
        self.dropped += 1
        return True

    def _enqueue(self, item: bytes | Prediction | Callable[[], bytes], size: int) -> None:
        self.flush()
        self._added += size
        self._added_lines += 1
        self._waiting.append((item, 1, size))
        self._rouse()

    def _rouse(self) -> None:
        if not self._woken:
            self._woken = True
            self._wake.set()

    @property
    def tail(self) -> bytes:
        """The end of every line, from the comma on: who answered."""
        return self._tail

    def __len__(self) -> int:
        """Lines that wait."""
        return self._added_lines - self._taken_lines

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
        inputs, told = prediction.inputs, self._told_of(prediction)
        if inputs is not None and len(inputs) == 1:
            ((name, array),) = inputs.items()
            made = self._line(prediction, name, array, told)
            if made is not None:
                return made
        if inputs is not None:
            told = b',"rows":%d,"input_hash":"%b"' % (prediction.rows, input_hash(inputs).encode()) + told
        return self._line(prediction, "", None, told) or b""

    def _line(self, prediction: Prediction, name: str, array: Array | None, told: bytes) -> bytes | None:
        return line(
            self._wall,
            prediction.request_id,
            prediction.code,
            prediction.received,
            prediction.queued,
            prediction.started,
            prediction.finished,
            prediction.answered,
            prediction.rows,
            name,
            array,
            told,
            self._tail,
        )

    def _told_of(self, prediction: Prediction) -> bytes:
        """What stands between the input's hash and who answered."""
        encode = self._encoder.encode
        names = prediction.names
        told = b""
        if self._payloads and prediction.inputs is not None and self._random.random() < self._payloads:
            shown = {name: self._shown(name, array) for name, array in prediction.inputs.items()}
            told = b',"inputs":' + encode(shown)
        if prediction.outputs_text:
            told += prediction.outputs_text
        elif names:
            before = b',"outputs":{'
            for name, array in zip(names, prediction.outputs, strict=True):
                told += before + _member(name) + encode(REDACTED if name in self._redact else _values(array))
                before = b","
            told += b"}"
        return told + who(prediction.client, prediction.trace_id)

    def outputs(self, batch: Joined) -> list[bytes]:
        """What a line says of the outputs of each row of `batch`; made once for all of them."""
        if batch.logged is None:
            befores = [(b"," if index else b',"outputs":{') + _member(name) for index, name in enumerate(batch.names)]
            columns = [self._nested(name, batch, index) for index, name in enumerate(batch.names)]
            batch.logged = woven(befores, columns, b"}")
        return batch.logged

    def _nested(self, name: str, batch: Joined, index: int) -> list[bytes]:
        """The values of an output by row, in the brackets of its shape."""
        array = batch.answers[index]
        shape = array.shape
        if name in self._redact:
            return [self._encoder.encode(REDACTED)] * shape[0]
        if array.ndim > 2 or array.size > _MAX_VALUES * shape[0]:
            return [self._encoder.encode(_values(array[at : at + 1])) for at in range(shape[0])]
        before, behind = (b"[[", b"]]") if array.ndim == 2 else (b"[", b"]")
        return [before + value + behind for value in batch.values(index)]

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
            # In this order: what is added behind the second line is seen by the third, or wakes the thread.
            self._wake.clear()
            self._woken = False
            self._write_waiting()
            if self._stopping.asked and not self._waiting:
                break
        self._sink.close(self._patience)

    def _write_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            blocks: list[bytes | bytearray] = []
            size = count = 0
            while waiting and size < self._sink.batch_bytes:
                item, lines, held = waiting.popleft()
                self._taken += held
                self._taken_lines += lines
                try:
                    if isinstance(item, Prediction):
                        item = self.line(item)
                    block = item if isinstance(item, (bytes, bytearray)) else item()
                except Exception as error:
                    self._trouble(lines, error)
                    continue
                blocks.append(block)
                count += lines
                size += len(block)
            if not blocks:
                continue
            try:
                self._sink.write_blocks(blocks, count, self._stopping)
            except OSError as error:
                self._trouble(0, error)

    def _trouble(self, lines: int, error: Exception) -> None:
        self._failed += lines
        if time.monotonic() - self._told >= 60.0:
            self._told = time.monotonic()
            logs.event("error", "the prediction log cannot be written", error=str(error)[:300])


def who(client: str, trace_id: bytes) -> bytes:
    """What a line says of who asked, where that is known."""
    told = b',"client":"%b"' % client.encode() if client else b""
    return told + b',"trace_id":"%b"' % trace_id if trace_id else told


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
