"""Open Inference Protocol datatypes and what they are in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic] | NDArray[np.object_]

NUMPY: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(np.float32),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""The numpy dtype of each datatype; BYTES is an object array of str, BF16 is float32 (see `bfloat16`)."""
WIRE_BYTES = {name: 2 if name == "BF16" else dtype.itemsize for name, dtype in NUMPY.items() if name != "BYTES"}
"""Bytes of an element in a raw tensor."""
FLOATS = tuple(name for name, dtype in NUMPY.items() if dtype.kind == "f")
"""Those that are floating-point numbers."""
