"""A model opened for a command: verified as far as a command can, not warmed up more than once, closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from serinus_runtime.about import About
from serinus_runtime.about import read as read_about
from serinus_runtime.config import Config
from serinus_runtime.engine import Engine, Signature
from serinus_runtime.engine.registry import open_engine
from serinus_runtime.examples import Examples
from serinus_runtime.examples import read as read_examples
from serinus_runtime.warmup import warm_up


class Opened(msgspec.Struct, frozen=True):
    """An engine, the signature that warm-up found, what `model.json` says, and what warm-up ran."""

    engine: Engine
    signature: Signature
    about: About
    examples: Examples | None = None


@contextmanager
def opened(directory: Path, *, threads: int = 1, max_batch: int = 2) -> Iterator[Opened]:
    """The model in `directory` for the time of the context. Raises FailureError as `serve` would."""
    engine = open_engine(Config(model_dir=directory, threads=threads))
    try:
        examples = read_examples(directory, engine.signature)
        signature = warm_up(engine, max_batch, examples=examples).signature
        yield Opened(engine, signature, read_about(directory, signature), examples)
    finally:
        engine.close()
