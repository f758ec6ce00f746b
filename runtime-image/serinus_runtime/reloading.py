"""Another model in the place of the one that is served, without a request that is refused or answered by the wrong one.

`unload` gives the model up, where clients may ask for that (see `control`), and `load` brings one back.

The new model is loaded and warmed up beside the old one. Then requests that arrive are read for the new model and held
up, the old model answers what it had taken, and only when it has nothing left does everything change at once: headers,
metrics, log, caches. What was held up has waited no longer than it would have in the old model's queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from serinus_runtime import logs
from serinus_runtime.config import Config
from serinus_runtime.digest import verify
from serinus_runtime.failures import FailureError
from serinus_runtime.loading import Loaded, load_model
from serinus_runtime.state import GOING, LOADING, STARTING, Away, Refusal

if TYPE_CHECKING:
    from serinus_runtime.server import Server
    from serinus_runtime.serving import Serving

FIELDS = ("model_dir", "model_digest", "model_version")
"""What may be another with every reload; all else is as it was at the start."""
_LOOK_SECONDS = 0.0005
_PATIENCE = 5.0
"""Seconds, beyond the queue timeout, that the old model has for what it had taken."""


class Reloaded(NamedTuple):
    """What became of it: `done`, `failed` or `unchanged`, and why it failed."""

    outcome: str
    why: str = ""


class _GoingError(Exception):
    """The process is about to go: a new model would serve nobody."""


class Reloader:
    """Of one server. `reload` belongs to its event loop."""

    def __init__(self, server: Server, load: Callable[[Config], Loaded] = load_model) -> None:
        self._server = server
        self._load = load
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._outcomes = dict.fromkeys(("done", "failed", "unchanged"), 0)
        self._given_up: Config | None = None
        """Of the model that was unloaded."""

    async def reload(self, config: Config) -> bool:
        """Serves what the model directory of `config` holds now; FIELDS are taken from it.

        False: what was served is still served, and the log says why. Never raises for a model that cannot be loaded.
        """
        async with self._lock:
            if self._given_up is not None:
                logs.event(
                    "warning", "nothing is loaded anew: the model was unloaded, and a client's load brings it back"
                )
                return False
            return (await self._counted(config)).outcome == "done"

    async def load(self, config: Config) -> Reloaded:
        """As `reload`, and also where the model was unloaded."""
        async with self._lock:
            return await self._counted(config)

    async def unload(self) -> bool:
        """Gives the model up once what it had taken is answered. False: there is none."""
        async with self._lock:
            old, state = self._server.serving, self._server.state
            if old is None:
                return False
            name = old.config.model_name
            refusal = Refusal("not_ready", 404, f"model {name!r} is unloaded: POST /v2/repository/models/{name}/load")
            state.model, state.raw, state.cache = None, {}, None
            state.away = Away(refusal, "UNLOADING", "unloading", "UNLOADING")
            if not await _over(old):
                logs.event("warning", "the model is still busy: what it has not answered is not answered")
            old.leave()
            self._given_up = old.config
            self._server.vacate(old)
            await asyncio.wait({self._give_up(old)})
            state.away = Away(refusal, "UNAVAILABLE", "unloaded", "END")
            logs.event("info", "the model was unloaded", version=old.config.model_version, digest=old.loaded.digest)
            return True

    async def _counted(self, config: Config) -> Reloaded:
        done = await self._reload(config)
        self._outcomes[done.outcome] += 1
        return done

    async def _reload(self, config: Config) -> Reloaded:
        server = self._server
        old = server.serving
        base = old.config if old is not None else self._given_up
        if base is None or server.state.draining:
            logs.event("warning", "nothing is loaded anew: there is no model of ours in service")
            return Reloaded("failed", GOING.message if server.state.draining else LOADING)
        wanted = msgspec.structs.replace(base, **{name: getattr(config, name) for name in FIELDS})
        in_thread = asyncio.get_running_loop().run_in_executor
        loaded: Loaded | None = None
        try:
            digest = await in_thread(None, verify, wanted.model_dir, wanted.model_digest)
            if old and digest == old.loaded.digest and wanted.model_version == old.config.model_version:
                logs.event("info", "the model is as it was: nothing is loaded anew", digest=digest)
                return Reloaded("unchanged")
            loaded = await in_thread(None, self._load, wanted)
            if server.state.draining:
                raise _GoingError(GOING.message)  # noqa: TRY301
            new = server.prepare(wanted, loaded)
        except Exception as error:
            if loaded is not None:
                await in_thread(None, loaded.engine.close)
            reason = error.reason.value if isinstance(error, FailureError) else type(error).__name__
            goes_on = "the old one goes on" if old is not None else "there is none, as before"
            logs.event(
                "error", f"the model could not be loaded anew: {goes_on}", reason=reason, why=str(error),
                version=base.model_version, digest="" if old is None else old.loaded.digest,
            )  # fmt: skip
            return Reloaded("failed", f"{reason}: {error}")
        await self._swap(old, new)
        logs.event(
            "info", "the model was loaded anew", version=wanted.model_version, digest=loaded.digest,
            before="" if old is None else old.loaded.digest, batched=loaded.signature.batched,
            proved=not loaded.unproved, seconds=round(loaded.seconds, 3),
        )  # fmt: skip
        return Reloaded("done")

    async def _swap(self, old: Serving | None, new: Serving) -> None:
        if old is not None:
            new.batcher.hold()
        self._server.announce(new)
        if old is not None and not await _over(old):
            logs.event("warning", "the old model is still busy: its last answers will carry the new model's digest")
        if old is not None:
            old.leave()
        self._given_up, self._server.state.away = None, STARTING
        self._server.enter(new)
        if old is not None:
            new.batcher.release()
            self._give_up(old)

    def _give_up(self, old: Serving) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(old.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def close(self) -> None:
        """Waits for models that are being given up."""
        if self._closing:
            await asyncio.wait(self._closing)

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """How often a model was loaded anew, with the labels that all metrics have."""
        family = CounterMetricFamily(
            "serinus_model_reloads", "Reloads of the model by outcome", labels=[*names, "outcome"]
        )
        for outcome, count in self._outcomes.items():
            family.add_metric([*values, outcome], count)
        yield family


async def _over(old: Serving) -> bool:
    """Waits until `old` has nothing left to answer; False: it takes too long."""
    until = time.monotonic() + old.config.queue_timeout + _PATIENCE
    while not old.idle:
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


class Reloads:
    """What SIGHUP asks for: one reload at a time, and one more where it was asked for meanwhile."""

    def __init__(self, server: Server, settings: Callable[[], Config]) -> None:
        self._server = server
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._again = False

    @property
    def under_way(self) -> bool:
        """True while a model is loaded."""
        return self._task is not None and not self._task.done()

    def ask(self) -> None:
        """Called on the event loop."""
        if self.under_way:
            self._again = True
        else:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            try:
                config = self._settings()
            except FailureError as error:
                logs.event("error", "the settings cannot be read: the old model goes on", why=str(error))
                continue
            await self._server.reload(config)
