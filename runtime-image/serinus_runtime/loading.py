"""From a model directory to a model that is verified, loaded and warm."""

from __future__ import annotations

import time

import msgspec

from serinus_runtime.about import About
from serinus_runtime.about import read as read_about
from serinus_runtime.config import Config
from serinus_runtime.digest import verify
from serinus_runtime.engine import Engine, Signature
from serinus_runtime.engine.registry import open_engine
from serinus_runtime.examples import read as read_examples
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.modelmanifest import tell_misfits
from serinus_runtime.ragged import Ragged, open_ragged
from serinus_runtime.warmup import measure, warm_up


class Loaded(msgspec.Struct, frozen=True):
    """A model that is verified, loaded and warm."""

    engine: Engine
    signature: Signature
    digest: str
    seconds: float
    about: About = About()
    max_batch: int = 0
    """Rows that a batch may have; 0: as many as the settings say."""
    costs: dict[int, float] = {}
    """Seconds per batch by its rows, as warm-up measured them; without, nothing runs on the event loop."""
    ragged: Ragged | None = None
    unproved: str = ""
    """What warm-up could not prove, and what to ship with the model so that it can."""


def load_model(config: Config) -> Loaded:
    """Verifies, loads and warms up the model of `config`. Takes its time. Raises FailureError."""
    started = time.monotonic()
    digest = verify(config.model_dir, config.model_digest)
    engine = open_engine(config)
    try:
        ragged = open_ragged(config.model_dir, engine.signature)
        lengths = ragged.lengths() if ragged is not None else ()
        examples = read_examples(config.model_dir, engine.signature)
        most = config.usual_batch
        warmed = warm_up(engine, most, config.batch_preferred, lengths, examples)
        if warmed.unproved and config.require_proof:
            raise FailureError(Reason.WARMUP_FAILED, f"SERINUS_REQUIRE_PROOF is set, and {warmed.unproved}")  # noqa: TRY301
        signature = warmed.signature
        # What a batch costs depends on its lengths where there are any: such ones never run on the event loop.
        measurable = engine.inline and ragged is None
        grows = config.batch_max_size is None
        costs = measure(engine, signature, most, examples, grows=grows) if measurable else {}
        if grows:
            most = max((most, *costs))
        about = read_about(config.model_dir, signature)
        tell_misfits(config.model_dir, signature)
    except BaseException:
        engine.close()
        raise
    ragged = ragged if signature.batched else None
    return Loaded(
        engine,
        signature,
        digest,
        time.monotonic() - started,
        about,
        max_batch=most,
        costs=costs,
        ragged=ragged,
        unproved=warmed.unproved,
    )
