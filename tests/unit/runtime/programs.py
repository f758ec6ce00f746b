"""What the worker processes of the tests run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Engine, EngineError, Signature, TensorSpec


class Misbehaving:
    """Does what it is told by `op`, also what no program should."""

    def __init__(self, greeting: str = "hello", marker: str = "") -> None:
        self._greeting = greeting
        self._marker = Path(marker) if marker else None
        self._held: list[Any] = []

    def describe(self) -> Mapping[str, Any]:
        return {"greeting": self._greeting}

    def handle(self, op: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        if op == "echo":
            return dict(arrays)
        if op == "pid":
            return {"pid": np.array(os.getpid())}
        if op == "raise":
            raise ValueError("not these\nnumbers")
        if op == "die":
            os._exit(3)
        if op == "die once" and self._marker is not None and not self._marker.exists():
            self._marker.touch()
            os._exit(3)
        if op == "hang":
            while True:
                time.sleep(1)
        if op == "grow":
            self._held.append(np.ones(int(meta["bytes"]), np.uint8))
        if op == "print":
            print("this must not reach the server's own output")
        if op == "garbage":
            os.write(int(meta.get("fd", 0)) or _socket_fd(), b"\xff\xff\xff\xff garbage")
        return {"done": np.array(True)}


def _socket_fd() -> int:
    return next(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if str(fd.readlink()).startswith("socket:"))


def refuse(text: str) -> Misbehaving:
    """A factory that fails."""
    raise RuntimeError(text)


def leave() -> Misbehaving:
    """A factory that takes the process with it."""
    os._exit(7)


class Doubler(Engine):
    """y = 2 x; a 666 kills the process, a 667 is an error, a 668 takes for ever."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 3)),), batched=True)
    runtime = "doubler-1"
    platform = "double"
    backend = "doubler"

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        x = np.asarray(inputs["x"], dtype=np.float32)
        if np.any(x == 666):
            os._exit(1)
        if np.any(x == 667):
            raise EngineError("667 is not a number I like")
        while np.any(x == 668):
            time.sleep(1)
        return [x * 2 for _ in outputs]
