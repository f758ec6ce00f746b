"""What a binary tensor costs beside a copy of its memory: the protocol's own share of a large request."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from serinus_runtime.binary import from_raw, to_raw

_BYTES = 1 << 20
_CALLS = 20
_ROUNDS = 50


def _best(call: Callable[[], object]) -> float:
    """Seconds per call, the best of many rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(_CALLS):
            call()
        best = min(best, time.perf_counter() - started)
    return best / _CALLS


def copies() -> dict[str, float]:
    """Decoding and encoding of 1 MB of FP32, in copies of that memory: where it lies aligned, and where it does not."""
    count = _BYTES // 4
    raw = np.random.default_rng(0).bytes(_BYTES + 1)
    aligned, unaligned = memoryview(raw)[:_BYTES], memoryview(raw)[1:]
    array = np.frombuffer(raw, np.float32, count)
    copy = _best(lambda: bytearray(aligned))
    return {
        "decode_aligned": _best(lambda: from_raw("x", "FP32", [count], aligned)) / copy,
        "decode_unaligned": _best(lambda: from_raw("x", "FP32", [count], unaligned)) / copy,
        "encode": _best(lambda: b"".join((b"head", to_raw(array)))) / copy,
    }
