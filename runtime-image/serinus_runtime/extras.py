"""What can be switched on around the path of a request: the door, the circuit, what is remembered."""

from __future__ import annotations

import asyncio
import time

from serinus_runtime import logs
from serinus_runtime.cache import ResponseCache
from serinus_runtime.circuit import EngineCircuit
from serinus_runtime.config import Config
from serinus_runtime.engine import Signature
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.ingress.describing import Schema, describe
from serinus_runtime.ingress.door import Door
from serinus_runtime.ingress.http import HttpIngress
from serinus_runtime.ingress.keyfile import WatchedFile
from serinus_runtime.ingress.keys import KeyRing, read_keys
from serinus_runtime.ingress.tokenopening import open_tokens
from serinus_runtime.jobs.callbacks import Callbacks, read_secret
from serinus_runtime.jobs.http import JobsFront
from serinus_runtime.jobs.memory import MemoryStore
from serinus_runtime.jobs.records import Store
from serinus_runtime.jobs.redis import RedisStore
from serinus_runtime.jobs.service import Jobs
from serinus_runtime.metrics import Metrics
from serinus_runtime.redislink import RedisLink
from serinus_runtime.remembering import Remembering
from serinus_runtime.sharedcache import SharedCache
from serinus_runtime.state import State
from serinus_runtime.tickets import Run
from serinus_runtime.tracing import Served, Tracing


class Extras:
    """Of one server. Raises FailureError(INVALID_CONFIG) for settings that do not go together or cannot be read."""

    def __init__(self, config: Config, state: State, metrics: Metrics) -> None:
        self._config = config
        self._state = state
        self._metrics = metrics
        if config.response_cache_shared and not config.redis_url:
            raise FailureError(
                Reason.INVALID_CONFIG,
                "SERINUS_RESPONSE_CACHE_SHARED: needs a Redis: set SERINUS_REDIS_URL, such as redis://redis:6379/0",
            )
        self.door = Door(
            keys=_keys(config),
            tokens=open_tokens(config),
            rate=config.rate_limit,
            by_rows=config.rate_limit_cost == "rows",
            client_header=config.client_header.encode(),
            best=config.priority_best,
        )
        metrics.collect_more.append(self.door.collect)
        state.ingress = self._ingress = HttpIngress(self.door, config.open_paths)
        self._redis: RedisLink | None = None
        self._jobs: Jobs | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._secret = _secret(config)

    def sweep(self) -> None:
        """Called about once a second."""
        self.door.refresh()
        if self._jobs is not None and (self._sweeping is None or self._sweeping.done()):
            self._sweeping = asyncio.get_running_loop().create_task(self._jobs.sweep(time.monotonic()))

    def circuit(self, run: Run) -> EngineCircuit | None:
        """A circuit around `run`, if that is asked for."""
        failures = self._config.circuit_failures
        return EngineCircuit(run, failures) if failures else None

    def use(self, circuit: EngineCircuit | None) -> None:
        """Requests are refused while `circuit` is open."""
        self._ingress.circuit = circuit

    def cache(self, config: Config, signature: Signature, digest: str) -> Remembering | None:
        """What remembers a model's answers, if that is asked for. Called on the event loop."""
        shared: SharedCache | None = None
        if config.response_cache_shared and (redis := self._link()) is not None:
            shared = SharedCache(
                redis,
                f"serinus:cache:{config.model_name}:{digest.removeprefix('sha256:')}",
                config.response_cache_ttl,
                config.redis_timeout,
            )
        if not config.response_cache and shared is None:
            return None
        memory = ResponseCache(config.response_cache, config.response_cache_ttl, time.monotonic)
        by_row = config.response_cache_by == "row"
        if by_row and not signature.batched:
            logs.event("warning", "the model does not work in rows: SERINUS_RESPONSE_CACHE_BY=row is not used")
        return Remembering(memory, shared, time.monotonic, by_row=by_row and signature.batched)

    def tracing(self, config: Config, digest: str) -> Tracing | None:
        """Spans about a model, if there is somewhere to send them."""
        if not config.otlp_endpoint:
            return None
        return Tracing(
            config.otlp_endpoint,
            Served(
                config.model_name, config.model_version, digest, config.revision, config.namespace, config.deployment
            ),
        )

    def _link(self) -> RedisLink | None:
        config = self._config
        if self._redis is None and config.redis_url:
            self._redis = RedisLink(
                config.redis_url, password_file=config.redis_password_file, ca_file=config.redis_ca_file
            )
        return self._redis

    def jobs(self) -> None:
        """Jobs from now on, if they are asked for."""
        config, state = self._config, self._state
        if not config.async_mode:
            return
        store: Store
        if (redis := self._link()) is not None:
            store = RedisStore(redis, f"serinus:job:{config.model_name}", config.async_ttl)
        else:
            store = MemoryStore(config.async_ttl, time.monotonic)
        self._jobs = jobs = Jobs(
            store,
            lambda exchange: state.run_job(exchange),
            ttl=config.async_ttl,
            bound=config.async_max_jobs,
            size=config.async_max_bytes,
            concurrency=config.async_concurrency,
            callbacks=Callbacks(config.async_callback_hosts, self._secret),
        )
        state.jobs = JobsFront(jobs, self.door, lambda: state.draining)
        self._metrics.collect_more.append(jobs.collect)

    def describe(self, document: Schema) -> Schema:
        """The OpenAPI document with what is switched on."""
        config = self._config
        return describe(
            document,
            config.model_name,
            keys=self.door.asks_for_keys,
            open_paths=config.open_paths,
            jobs=config.async_mode,
            control=config.model_control != "off",
        )

    @property
    def unfinished(self) -> int:
        """Jobs that a drain should wait for."""
        return self._jobs.unfinished if self._jobs is not None else 0

    async def close(self) -> None:
        """Ends what was begun."""
        if self._jobs is not None:
            await self._jobs.close()
        if self._redis is not None:
            await self._redis.close()


def _secret(config: Config) -> bytes | None:
    if config.async_callback_secret_file is None:
        return None
    try:
        return read_secret(config.async_callback_secret_file)
    except (OSError, ValueError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_ASYNC_CALLBACK_SECRET_FILE: {error}") from None


def _keys(config: Config) -> WatchedFile[KeyRing] | None:
    if config.api_keys_file is None:
        return None
    try:
        return WatchedFile(config.api_keys_file, read_keys)
    except (OSError, ValueError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_API_KEYS_FILE: {error}") from None
