"""Another model in the place of the one that is served, without a request that is refused or answered by the wrong one.

The new model is loaded and warmed up beside the old one. Then requests that arrive are read for the new model and held
up, the old model answers what it had taken, and only when it has nothing left does everything change at once: headers,
metrics, log, caches. What was held up has waited no longer than it would have in the old model's queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from serinus_runtime import logs
from serinus_runtime.config import Config
from serinus_runtime.digest import verify
from serinus_runtime.failures import FailureError
from serinus_runtime.loading import Loaded, load_model

if TYPE_CHECKING:
    from serinus_runtime.server import Server
    from serinus_runtime.serving import Serving

FIELDS = ("model_dir", "model_digest", "model_version")
"""What may be another with every reload; all else is as it was at the start."""
_LOOK_SECONDS = 0.0005
_PATIENCE = 5.0
"""Seconds, beyond the queue timeout, that the old model has for what it had taken."""


class Reloader:
    """Of one server. `reload` belongs to its event loop."""

    def __init__(self, server: Server, load: Callable[[Config], Loaded] = load_model) -> None:
        self._server = server
        self._load = load
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._outcomes = dict.fromkeys(("done", "failed", "unchanged"), 0)

    async def reload(self, config: Config) -> bool:
        """Serves what the model directory of `config` holds now; FIELDS are taken from it.

        False: what was served is still served, and the log says why. Never raises for a model that cannot be loaded.
        """
        async with self._lock:
            outcome = await self._reload(config)
            self._outcomes[outcome] += 1
            return outcome == "done"

    async def _reload(self, config: Config) -> str:
        server = self._server
        old = server.serving
        if old is None or server.state.draining:
            logs.event("warning", "nothing is loaded anew: there is no model of ours in service")
            return "failed"
        wanted = msgspec.structs.replace(old.config, **{name: getattr(config, name) for name in FIELDS})
        in_thread = asyncio.get_running_loop().run_in_executor
        loaded: Loaded | None = None
        try:
            digest = await in_thread(None, verify, wanted.model_dir, wanted.model_digest)
            if digest == old.loaded.digest and wanted.model_version == old.config.model_version:
                logs.event("info", "the model is as it was: nothing is loaded anew", digest=digest)
                return "unchanged"
            loaded = await in_thread(None, self._load, wanted)
            new = server.prepare(wanted, loaded)
        except Exception as error:
            if loaded is not None:
                await in_thread(None, loaded.engine.close)
            reason = error.reason.value if isinstance(error, FailureError) else type(error).__name__
            logs.event(
                "error", "the model could not be loaded anew: the old one goes on", reason=reason, why=str(error),
                version=old.config.model_version, digest=old.loaded.digest,
            )  # fmt: skip
            return "failed"
        await self._swap(old, new)
        logs.event(
            "info", "the model was loaded anew", version=wanted.model_version, digest=loaded.digest,
            before=old.loaded.digest, batched=loaded.signature.batched, seconds=round(loaded.seconds, 3),
        )  # fmt: skip
        return "done"

    async def _swap(self, old: Serving, new: Serving) -> None:
        new.batcher.hold()
        self._server.announce(new)
        until = time.monotonic() + old.config.queue_timeout + _PATIENCE
        while not old.idle:
            if time.monotonic() >= until:
                logs.event("warning", "the old model is still busy: its last answers will carry the new model's digest")
                break
            await asyncio.sleep(_LOOK_SECONDS)
        old.leave()
        self._server.enter(new)
        new.batcher.release()
        task = asyncio.get_running_loop().create_task(old.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

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
