"""Whether clients may load and unload the model, decided from the settings."""

from __future__ import annotations

from collections.abc import Callable

from serinus_runtime.config import Config
from serinus_runtime.control import DONE, GOING, Control, Outcome, refused_as
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.ingress.door import Door
from serinus_runtime.reloading import Reloader
from serinus_runtime.state import STARTING, State

_STARTING = refused_as(STARTING.refusal)


def open_control(
    config: Config,
    settings: Callable[[], Config],
    door: Door,
    state: State,
    reloader: Reloader,
    done: Callable[[], None],
) -> Control | None:
    """None where SERINUS_MODEL_CONTROL is off. `settings` is what is set when a client asks; `done` is called after.

    Raises FailureError(INVALID_CONFIG).
    """
    if config.model_control == "off":
        return None
    if config.engine == "proxy":
        raise FailureError(
            Reason.INVALID_CONFIG,
            "SERINUS_MODEL_CONTROL: with SERINUS_ENGINE=proxy there is no model to load here: leave it off",
        )

    def not_now() -> Outcome | None:
        if state.draining:
            return GOING
        return _STARTING if state.model is None and state.away is STARTING else None

    async def load() -> Outcome:
        if (refused := not_now()) is not None:
            return refused
        try:
            wanted = settings()
        except FailureError as error:
            return Outcome(400, f"the settings cannot be read: {error}")
        outcome, why = await reloader.load(wanted)
        if outcome == "failed":
            # "A failed load request must be indicated by an HTTP error status (typically 400)", says the extension.
            return GOING if state.draining else Outcome(400, f"the model could not be loaded: {why}")
        if outcome == "done":
            done()
        return DONE

    async def unload() -> Outcome:
        if (refused := not_now()) is not None:
            return refused
        if await reloader.unload():
            done()
        return DONE

    return Control(config.model_name, door, load, unload)
