"""A model opened for a command: verified as far as a command can, not warmed up more than once, closed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from serinus_runtime.about import About
from serinus_runtime.about import read as read_about
from serinus_runtime.config import from_environment
from serinus_runtime.engine import Engine, Signature
from serinus_runtime.engine.registry import open_engine
from serinus_runtime.examples import Examples
from serinus_runtime.examples import read as read_examples
from serinus_runtime.warmup import warm_up

_ALLOWED = ("SERINUS_ALLOW_PYTHON", "SERINUS_ALLOW_PICKLE", "SERINUS_TORCH_PYTHON")


class Opened(msgspec.Struct, frozen=True):
    """An engine, the signature that warm-up found, what `model.json` says, and what warm-up ran."""

    engine: Engine
    signature: Signature
    about: About
    examples: Examples | None = None


@contextmanager
def opened(directory: Path, *, threads: int = 1, max_batch: int = 2) -> Iterator[Opened]:
    """The model in `directory` for the time of the context. Raises FailureError as `serve` would.

    Of the environment only what lets a model run code is looked at: the rest says how one process serves.
    """
    allowed = from_environment({name: os.environ.get(name, "") for name in _ALLOWED})
    engine = open_engine(msgspec.structs.replace(allowed, model_dir=directory, threads=threads))
    try:
        examples = read_examples(directory, engine.signature)
        signature = warm_up(engine, max_batch, examples=examples).signature
        yield Opened(engine, signature, read_about(directory, signature), examples)
    finally:
        engine.close()
