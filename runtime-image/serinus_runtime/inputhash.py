"""What a line of the prediction log says of the input instead of showing it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec
import numpy as np

from serinus_runtime.datatypes import Array


def input_hash(inputs: Mapping[str, Array]) -> str:
    """blake2b (16 bytes, hex) of names, types, shapes and values, the inputs in the order of their names."""
    digest: blake2b | None = None
    for name in sorted(inputs) if len(inputs) > 1 else inputs:
        array = inputs[name]
        if digest is None:
            digest = _begun(name, array.dtype.char, array.shape).copy()
        else:
            digest.update(kind(name, array.dtype.char, array.shape))
        if array.dtype.kind == "O":
            digest.update(msgspec.json.encode(array.tolist()))
        else:
            digest.update((array if array.flags.c_contiguous else np.ascontiguousarray(array)).data)
    return "" if digest is None else digest.hexdigest()


@lru_cache(maxsize=1024)
def _begun(name: str, char: str, shape: tuple[int, ...]) -> blake2b:
    """A hash that has seen the first input's kind. To be copied: that is half of what beginning one costs."""
    return blake2b(kind(name, char, shape), digest_size=16)


def kind(name: str, char: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the values of an input: its name, type and shape."""
    return f"{name}\0{np.dtype(char).str}\0{shape}\0".encode()
