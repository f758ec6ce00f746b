"""Python code that is shipped with a model: where it is allowed, and the worker side that runs its functions."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serinus_runtime.config import Config
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine.base import EngineError, TensorSpec
from serinus_runtime.engine.worker import Program, WorkerLimits, WorkerPool
from serinus_runtime.failures import FailureError, Reason

_NUMBERS = "biuf"


def start_code(config: Config, file: str, functions: Sequence[str], why: str) -> WorkerPool:
    """Worker processes for `functions` of `file` in the model directory; `why` names who asks, for messages.

    Raises FailureError: INVALID_CONFIG when such code is not allowed, MODEL_LOAD_FAILED when it does not start.
    """
    if not config.allow_python:
        raise FailureError(
            Reason.INVALID_CONFIG,
            f"{why} asks for the Python code in {file}, which is not run unless SERINUS_ALLOW_PYTHON=true; set it if "
            "you trust whoever made the model, or export the step as ONNX",
        )
    path = config.model_dir / file
    if Path(file).name != file or not file.endswith(".py") or not path.is_file() or path.is_symlink():
        raise FailureError(
            Reason.MODEL_LOAD_FAILED, f"{why}: {file!r} must be a Python file at the top of the model directory"
        )
    program = Program(
        "serinus_runtime.engine.pythoncode:CodeService",
        {"path": str(path.absolute()), "digest": file_digest(path), "functions": list(functions)},
    )
    limits = WorkerLimits(config.engine_timeout, config.engine_start_timeout, config.worker_memory)
    return WorkerPool(program, config.workers, limits)


def file_digest(path: Path) -> str:
    """`sha256:` and hex of a file."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def checked(given: Mapping[str, Array], specs: Sequence[TensorSpec], who: str) -> dict[str, Array]:
    """What a function gave, as the types that `specs` ask for. Raises EngineError, which says what is wrong."""
    arrays: dict[str, Array] = {}
    for spec in specs:
        array = given.get(spec.name)
        if array is None:
            raise EngineError(f"{who} gave no {spec.name!r}; it gave {', '.join(given) or 'nothing'}")
        wanted = NUMPY[spec.datatype]
        if array.dtype != wanted:
            # Numbers of another width are what numpy's functions give by themselves; another kind is a mistake.
            if array.dtype.kind != wanted.kind and not (array.dtype.kind in "biu" and wanted.kind == "f"):
                raise EngineError(f"{who} gave {spec.name!r} as {array.dtype}, but {spec.datatype} is needed")
            array = array.astype(wanted)
        shape = array.shape
        if len(shape) != len(spec.shape) or any(
            want not in (-1, got) for want, got in zip(spec.shape, shape, strict=True)
        ):
            raise EngineError(f"{who} gave {spec.name!r} of shape {list(shape)}, but {list(spec.shape)} is needed")
        arrays[spec.name] = array
    return arrays


class CodeService:
    """In the worker: calls the functions of one file. A call's groups of arrays are told apart by `GROUP/NAME`."""

    def __init__(self, path: str, digest: str, functions: Sequence[str]) -> None:
        file = Path(path)
        if file_digest(file) != digest:
            raise ValueError(f"{file.name} is not the file that was there when the model was loaded")
        sys.path.insert(0, str(file.parent))
        spec = importlib.util.spec_from_file_location(f"model_code_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        self._functions: dict[str, Callable[..., Mapping[str, Any]]] = {
            name: getattr(module, name) for name in functions if callable(getattr(module, name, None))
        }

    def describe(self) -> Mapping[str, Any]:
        """Which of the functions there are."""
        return {"functions": list(self._functions)}

    def handle(self, op: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Calls the function `op` with one dict of arrays for each group that meta names."""
        groups: list[dict[str, Array]] = [
            {name[len(group) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{group}/")}
            for group in meta["groups"]
        ]
        given = self._functions[op](*groups)
        if not isinstance(given, Mapping):
            raise TypeError(f"{op} must return a dict of name to array, not {type(given).__name__}")
        made = {str(name): np.asarray(value) for name, value in given.items()}
        for name, array in made.items():
            if array.dtype.kind not in _NUMBERS and array.dtype.kind not in "OUS":
                raise TypeError(f"{op} gave {name!r} as {array.dtype}, which is neither numbers nor text")
        return made


def call(pool: WorkerPool, function: str, *groups: Mapping[str, Array]) -> Mapping[str, Array]:
    """Calls `function` in a worker with one dict for each of `groups`. Raises as `WorkerPool.call`."""
    names = [str(index) for index in range(len(groups))]
    arrays = {
        f"{group}/{name}": array for group, found in zip(names, groups, strict=True) for name, array in found.items()
    }
    return pool.call(function, {"groups": names}, arrays)
