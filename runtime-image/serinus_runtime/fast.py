"""What is left of a request when everything else is compiled: a list of numbers to read, and times to write.

`_fast.c` does the same, where it was built, in a tenth of the time. Its results are these, bit for bit, or None.
"""

from __future__ import annotations

import struct

import msgspec

__all__ = ["floats", "python_floats", "python_times", "times"]

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


def python_times(
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
) -> bytes:
    """The beginning of a line of the prediction log: when, who, and how long each part took, in milliseconds.

    Whole microseconds and %d: formatting a float costs five times as much. `wall` is the system's time at zero on the
    clock of the others. Request ids are checked where they come in: nothing in them needs escaping.
    """
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
    from serinus_runtime._fast import floats, times
except ImportError:
    floats, times = python_floats, python_times
