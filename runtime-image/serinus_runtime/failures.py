"""How the runtime says why it cannot serve: a reason that the operator understands, and a sentence for people."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path

MAX_TERMINATION_MESSAGE = 4096
"""Bytes that the kubelet keeps of a termination message."""


class Reason(enum.Enum):
    """Why the runtime gave up; the value is what the operator reads, `exit_code` what the process returns."""

    DIGEST_MISMATCH = "DigestMismatch"
    FETCH_FAILED = "FetchFailed"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    WARMUP_FAILED = "WarmupFailed"
    INVALID_CONFIG = "InvalidConfig"

    @property
    def exit_code(self) -> int:
        """The process' exit code for this reason."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Reason.DIGEST_MISMATCH: 65,
    Reason.MODEL_LOAD_FAILED: 66,
    Reason.WARMUP_FAILED: 67,
    Reason.FETCH_FAILED: 69,
    Reason.INVALID_CONFIG: 78,
}


class FailureError(Exception):
    """Ends the process: `message` says what was expected, what came, and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def report(failure: FailureError, termination_log: str) -> int:
    """Writes the failure to stderr and, where there is one, to the termination message; returns the exit code."""
    message = " ".join(failure.message.split())
    body = _encode(failure.reason, message)
    while len(body) > MAX_TERMINATION_MESSAGE:
        message = message[: len(message) - max(1, (len(body) - MAX_TERMINATION_MESSAGE) // 6)]
        body = _encode(failure.reason, message)
    print(body.decode(), file=sys.stderr, flush=True)
    try:
        # Not created when absent: the kubelet makes the file, and on a laptop nobody wants one in /dev.
        with Path(termination_log).open("r+b") as log:
            log.truncate()
            log.write(body)
    except OSError:
        pass
    return failure.reason.exit_code


def _encode(reason: Reason, message: str) -> bytes:
    return json.dumps({"reason": reason.value, "message": message}).encode()
