"""A tap for a server that is ready to answer."""

from __future__ import annotations

from collections.abc import Callable

from serinus_runtime.about import About
from serinus_runtime.config import Config
from serinus_runtime.engine import Signature
from serinus_runtime.metrics import Metrics
from serinus_runtime.predictionlog import Prediction
from serinus_runtime.shadow.admission import Admission, default_readers
from serinus_runtime.shadow.front import Prepare, TapFront
from serinus_runtime.shadow.tap import Tap
from serinus_runtime.shadow.telling import Teller
from serinus_runtime.state import State


def open_tap(
    config: Config,
    state: State,
    metrics: Metrics,
    signature: Signature | None,
    about: About,
    prepare: Prepare | None = None,
) -> TapFront | None:
    """The tap of `state`, closed until somebody reads it; None where `SERINUS_TAP` is off."""
    if config.tap == "off":
        return None
    readers = default_readers(config.namespace, config.deployment)
    if config.tap != "auto":
        readers = tuple(name.strip() for name in config.tap.split(",") if name.strip())
    teller = Teller(signature, about, config.prediction_log_redact)

    def attach(add: Callable[[Prediction], None] | None) -> None:
        state.tap = add

    # A model that was loaded anew begins with a tap that nobody reads.
    attach(None)
    metrics.mirroring(False)
    tap = Tap(config.revision, teller.columns, attach, teller.scoring)
    front = TapFront(tap, teller, Admission(readers), prepare, metrics.mirroring)
    state.tapped = front.handle
    return front
