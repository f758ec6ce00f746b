"""What is left of a request when everything else is compiled: numbers to read, heads, a line of the log to write.

`_fast.c`, `_head.c` and `_line.c` do the same, where they were built, in a tenth of the time. Their results are these,
bit for bit, or None.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TypeVar

import msgspec

from serinus_runtime.datatypes import Array
from serinus_runtime.inputhash import input_hash

__all__ = [
    "HEAD_BYTES",
    "PREFIX_BYTES",
    "add_line",
    "answer",
    "floats",
    "known_body",
    "known_head",
    "line",
    "numbered",
    "python_add_line",
    "python_answer",
    "python_floats",
    "python_known_body",
    "python_known_head",
    "python_line",
    "python_numbered",
]

HEAD_BYTES = 1024
"""Longer heads are not known again."""
PREFIX_BYTES = 512
"""So far into a body its numbers are looked for."""
_DATA = b'"data":'
_T = TypeVar("_T")

_decode = msgspec.json.Decoder(list[float]).decode


def python_floats(text: bytes, start: int, count: int, wide: bool) -> tuple[bytes, int] | None:
    """The list of `count` JSON numbers at `start` as machine floats (`wide`: of eight bytes), and where it ends.

    None when there is anything else, or a number that does not fit.
    """
    end = text.find(b"]", start) + 1
    try:
        values = _decode(text[start:end])
        if len(values) != count:
            return None
        return struct.pack(f"={count}{'d' if wide else 'f'}", *values), end
    except (msgspec.DecodeError, OverflowError, struct.error, UnicodeDecodeError):
        return None


def python_known_body(body: bytes, forms: dict[bytes, tuple[int, bool, bytes, _T]]) -> tuple[_T, bytes] | None:
    """What the form of `body` means, and its numbers as machine floats; None: no such form, or not such numbers.

    A form is what stands before the list of numbers under the first key `data`, and then: how many there are, whether
    they become floats of eight bytes, what stands behind them, and what it means.
    """
    at = body.find(_DATA, 0, PREFIX_BYTES)
    start = body.find(b"[", at + len(_DATA), at + len(_DATA) + 2) if at >= 0 else -1
    form = forms.get(body[:start]) if start > 0 else None
    if form is None:
        return None
    count, wide, suffix, meaning = form
    found = python_floats(body, start, count, wide)
    if found is None or body[found[1] :] != suffix:
        return None
    return meaning, found[0]


def python_known_head(data: bytes, heads: dict[bytes, _T]) -> tuple[_T, bytes] | None:
    """What is known of the head at the start of `data`, up to the empty line, and what comes behind that line."""
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES)
    head = heads.get(data[:end]) if end >= 0 else None
    return None if head is None else (head, data[end + 4 :])


def python_answer(
    status_line: bytes,
    common: bytes,
    request_id: bytes,
    content_type: bytes,
    headers: bytes,
    body: bytes,
    silent: bool,
) -> bytes:
    """A whole answer of HTTP/1.1. `status_line`, `common` and `headers` are whole lines; `silent`: without the body."""
    return b"".join(
        (
            status_line,
            common,
            b"x-request-id: ",
            request_id,
            b"\r\ncontent-type: ",
            content_type,
            b"\r\ncontent-length: %d\r\n" % len(body),
            headers,
            b"\r\n",
            b"" if silent else body,
        )
    )


def python_numbered(prefix: bytes, number: int) -> bytes:
    """`prefix` and the number in hex."""
    return prefix + b"%x" % number


def python_line(
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
    rows: int,
    name: str | bytes,
    array: Array | bytes | None,
    middle: bytes,
    tail: bytes,
) -> bytes | None:
    """A line of the prediction log: when, who, how long each part took in ms, what was asked, `middle`, `tail`.

    Whole microseconds and %d: formatting a float costs five times as much. `wall` is the system's time at zero on the
    clock of the others. Request ids are checked where they come in: nothing in them needs escaping. What was asked is
    told where `array`, the only input, is given, by its hash (see inputhash): the input `name`, or its bytes, where
    `name` is what comes before them in the hash. None: not an array for this, hash it another way.
    """
    asked = b""
    if array is not None:
        if isinstance(array, bytes) and isinstance(name, bytes):
            digest = blake2b(name + array, digest_size=16).hexdigest()
        elif isinstance(array, bytes) or isinstance(name, bytes):
            raise TypeError("bytes come with bytes, an array with its name")
        elif array.dtype.kind == "O":
            return None
        else:
            digest = input_hash({name: array})
        asked = b',"rows":%d,"input_hash":"%b"' % (rows, digest.encode())
    return b"".join(
        (_times(wall, request_id, code, received, queued, started, finished, answered), asked, middle, tail)
    )


def python_add_line(
    lines: bytearray,
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
    rows: int,
    name: str | bytes,
    array: Array | bytes | None,
    middle: bytes,
    tail: bytes,
) -> bool:
    """Adds what `line` makes of the others to `lines`; False: it is None, and nothing was added."""
    made = python_line(
        wall, request_id, code, received, queued, started, finished, answered, rows, name, array, middle, tail
    )
    if made is None:
        return False
    lines += made
    return True


def _times(
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
) -> bytes:
    at = _micros(answered + wall)
    total = _micros(answered - received)
    text = b'{"time":%d.%06d,"request_id":"%b","code":%d,"ms":{"total":%d.%03d' % (
        at // 1_000_000, at % 1_000_000, request_id, code, total // 1000, total % 1000,
    )  # fmt: skip
    if not queued:
        return text + b"}"
    decode = _micros(queued - received)
    text += b',"decode":%d.%03d' % (decode // 1000, decode % 1000)
    if not started:
        return text + b"}"
    wait, ran, rest = _micros(started - queued), _micros(finished - started), _micros(answered - finished)
    return text + b',"queue":%d.%03d,"infer":%d.%03d,"encode":%d.%03d}' % (
        wait // 1000, wait % 1000, ran // 1000, ran % 1000, rest // 1000, rest % 1000,
    )  # fmt: skip


def _micros(seconds: float) -> int:
    return int(seconds * 1e6 + 0.5) if 0.0 < seconds < 1e12 else 0


try:
    from serinus_runtime._fast import add_line, answer, floats, known_body, known_head, line, numbered
except ImportError:
    answer, floats, known_body, known_head = python_answer, python_floats, python_known_body, python_known_head
    add_line, line, numbered = python_add_line, python_line, python_numbered
