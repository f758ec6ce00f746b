"""Which engine runs a model directory: asked for by name, or told by the files that lie at its top."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import msgspec

from serinus_runtime.config import Config
from serinus_runtime.engine.base import Engine
from serinus_runtime.engine.processing import wrapped
from serinus_runtime.failures import FailureError, Reason

AUTO = "auto"


class Kind(msgspec.Struct, frozen=True):
    """An engine: the module in this package whose `open_engine(config)` makes it, and the files that ask for it."""

    module: str
    patterns: tuple[str, ...]


KINDS = {
    "pipeline": Kind("pipeline", ("pipeline.json",)),
    "onnx": Kind("onnx", ("model.onnx",)),
    "torch": Kind("torch", ("model.pt2", "model.pt")),
    "torchserve": Kind("torchserve", ("*.mar",)),
}
"""By the name that SERINUS_ENGINE gives it. A pipeline's directory may hold files of the others, as its steps."""


def choose(directory: Path, wanted: str) -> str:
    """The name of the engine for `directory`: `wanted`, or by its files where that is `auto`.

    Raises FailureError: INVALID_CONFIG when there is no such engine or the files leave a choice, MODEL_LOAD_FAILED when
    there is nothing to run.
    """
    if wanted != AUTO:
        if wanted not in KINDS:
            raise FailureError(
                Reason.INVALID_CONFIG,
                f"SERINUS_ENGINE: there is no engine {wanted!r}; write {AUTO}, {', '.join(KINDS)} or proxy",
            )
        return wanted
    found = [name for name, kind in KINDS.items() if any(any(directory.glob(pattern)) for pattern in kind.patterns)]
    if not found:
        files = ", ".join(pattern for kind in KINDS.values() for pattern in kind.patterns)
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"there is no model in {directory}; at its top a model directory holds one of {files}",
        )
    if len(found) > 1 and found[0] != "pipeline":
        raise FailureError(
            Reason.INVALID_CONFIG,
            f"{directory} holds models for {' and '.join(found)}; say with SERINUS_ENGINE which one is meant",
        )
    return found[0]


def open_engine(config: Config) -> Engine:
    """Loads the model in `config.model_dir`; whoever asks closes it. Takes its time. Raises FailureError."""
    name = choose(config.model_dir, config.engine)
    module = f"{__package__}.{KINDS[name].module}"
    if importlib.util.find_spec(module) is None:
        raise FailureError(Reason.INVALID_CONFIG, f"the engine {name} is not part of this image; use another flavour")
    try:
        opener: Callable[[Config], Engine] = importlib.import_module(module).open_engine
    except ImportError as error:
        raise FailureError(
            Reason.INVALID_CONFIG, f"the engine {name} cannot be used in this image: {error}; use another flavour"
        ) from error
    engine = opener(config)
    try:
        # A pipeline has steps of its own for that.
        return engine if name == "pipeline" else wrapped(engine, config)
    except BaseException:
        engine.close()
        raise
