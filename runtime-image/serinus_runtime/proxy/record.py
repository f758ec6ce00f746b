"""One JSON line per request that passes to an engine beside us, in the form of the prediction log."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from serinus_runtime.predictionlog import REDACTED

_INLINE_BYTES = 16 << 10
"""Larger bodies are looked at by the log's own thread."""
_SHOWN_BYTES = 64 << 10
"""Larger bodies are told by their size only."""
_DEPTH = 32
Put = Callable[[bytes, bytes | Callable[[], bytes], int], None]


class Passed(msgspec.Struct, gc=False):
    """What is known of a request that passed. Times are seconds on the monotonic clock, 0 when never reached."""

    code: int
    request_id: bytes
    method: bytes
    path: bytes
    body: bytes
    received: float
    sent: float
    first: float
    """When the first piece of the answer's body came."""
    ended: float
    size: int
    """Bytes of the answer's body."""
    events: int
    tokens: tuple[int, int] | None = None
    """Of the prompt and the completion."""
    client: str = ""
    """The name of the key that was shown."""
    trace_id: bytes = b""


class Recorder:
    """Makes the lines and gives them to `put`, with request ids and sizes. `tail` says who answered, from the comma on.

    `payloads` is the share of lines, 0 to 1, that show the body where it is JSON, without the members in `redact`.
    """

    def __init__(self, put: Put, tail: bytes, *, payloads: float = 0.0, redact: frozenset[str] = frozenset()) -> None:
        self._put = put
        self._tail = tail
        self._payloads = payloads
        self._redact = redact
        self._wall = time.time() - time.monotonic()
        self._random = random.Random()  # noqa: S311 - which payloads are kept is no secret
        self._encoder = msgspec.json.Encoder()

    def add(self, passed: Passed) -> None:
        """Takes a request; never blocks."""
        if len(passed.body) <= _INLINE_BYTES:
            line = self.line(passed)
            self._put(passed.request_id, line, len(line))
        else:
            self._put(passed.request_id, lambda: self.line(passed), len(passed.body))

    def line(self, passed: Passed) -> bytes:
        """The line, with its newline."""
        encode, received = self._encoder.encode, passed.received
        parts = [
            b'{"time":%.6f,"request_id":"%b","code":%d,"method":%b,"path":%b,"ms":{"total":%.3f'
            % (
                passed.ended + self._wall,
                passed.request_id,
                passed.code,
                encode(passed.method.decode("latin-1")),
                encode(passed.path[:1024].decode("utf-8", "replace")),
                (passed.ended - received) * 1e3,
            )
        ]
        if passed.sent:
            parts.append(b',"queue":%.3f' % ((passed.sent - received) * 1e3))
            if passed.first:
                parts.append(b',"first":%.3f' % ((passed.first - passed.sent) * 1e3))
            parts.append(b',"upstream":%.3f' % ((passed.ended - passed.sent) * 1e3))
        parts.append(b'},"bytes_in":%d,"bytes_out":%d' % (len(passed.body), passed.size))
        if passed.events:
            parts.append(b',"events":%d' % passed.events)
        if passed.tokens is not None:
            parts.append(b',"tokens":{"prompt":%d,"completion":%d}' % passed.tokens)
        if passed.body:
            digest = hashlib.blake2b(passed.body, digest_size=16).hexdigest()
            parts.append(b',"input_hash":"%b"' % digest.encode())
            if self._payloads and self._random.random() < self._payloads:
                parts += (b',"inputs":', encode(self.shown(passed.body)))
        if passed.client:
            parts.append(b',"client":%b' % encode(passed.client))
        if passed.trace_id:
            parts.append(b',"trace_id":"%b"' % passed.trace_id)
        parts.append(self._tail)
        return b"".join(parts)

    def shown(self, body: bytes) -> object:
        """The body as it may be seen: JSON without what is redacted; of anything else only the size."""
        if len(body) > _SHOWN_BYTES:
            return {"bytes": len(body)}
        try:
            return self._without(msgspec.json.decode(body), _DEPTH)
        except (ValueError, RecursionError):
            return {"bytes": len(body)}

    def _without(self, value: Any, depth: int) -> object:
        if depth == 0:
            return REDACTED
        if isinstance(value, dict):
            named = value.get("name")
            if isinstance(named, str) and named in self._redact:
                # A tensor of the Open Inference Protocol carries its name beside its data.
                return {"name": named, "data": REDACTED}
            return {
                key: REDACTED if key in self._redact else self._without(each, depth - 1) for key, each in value.items()
            }
        if isinstance(value, list):
            return [self._without(each, depth - 1) for each in value]
        return value
