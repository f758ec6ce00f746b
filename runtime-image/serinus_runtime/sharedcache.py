"""The second level of the response cache: Redis, shared by the replicas that serve the same model.

Lookups of one tick of the event loop go as one MGET, what is kept goes as one pipeline. Both are bounded in number and
in time; whatever goes wrong is a miss. What comes back is checked before it is believed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.redislink import RedisLink, RedisUnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_FLIGHTS = 4
"""Lookups under way at once; what comes meanwhile goes with the next."""
_KEYS = 1024
"""Keys of one lookup."""
_WAITING = 8192
_WRITING = 2048
_WRITE_SECONDS = 1.0
_VALUE_BYTES = 1 << 20
_KINDS = "biufO"
Outputs = Mapping[str, Array]
Found = Callable[[list[Outputs | None]], None]


class _Tensor(msgspec.Struct, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes | list[str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, _Tensor])


def encode(outputs: Outputs) -> bytes:
    """Arrays as bytes, in MessagePack."""
    return _encoder.encode(
        {
            name: _Tensor("O", array.shape, [str(item) for item in array.ravel().tolist()])
            if array.dtype.kind == "O"
            else _Tensor(array.dtype.str, array.shape, array.tobytes())
            for name, array in outputs.items()
        }
    )


def decode(data: bytes, names: Sequence[str]) -> Outputs | None:
    """The arrays in `data` if it holds those of `names`, else None: a stranger may have written it."""
    try:
        tensors = _decoder.decode(data)
        if set(tensors) != set(names):
            return None
        found: dict[str, Array] = {}
        for name, tensor in tensors.items():
            if isinstance(tensor.data, list):
                array: Array = np.empty(len(tensor.data), dtype=object)
                array[:] = tensor.data
            else:
                dtype = np.dtype(tensor.dtype)
                if dtype.kind not in _KINDS or dtype.kind == "O":
                    return None
                array = np.frombuffer(tensor.data, dtype=dtype)
            found[name] = array.reshape(tensor.shape)
    except (msgspec.DecodeError, ValueError, TypeError):
        return None
    return found


class SharedCache:
    """Outputs by key in Redis. `prefix` holds the model's digest; `ttl` and `timeout` are in seconds."""

    def __init__(self, link: RedisLink, prefix: str, ttl: float, timeout: float) -> None:
        self.hits = 0
        self.misses = 0
        self.errors = 0
        """Keys that could not be looked up, and count as misses for the request."""
        self.dropped = 0
        """Answers that were not written: too many waited, or Redis was gone."""
        self._link = link
        self._prefix = prefix.encode() + b":"
        self._ttl_ms = max(1, int(ttl * 1e3))
        self._timeout = timeout
        self._waiting: deque[tuple[bytes, Sequence[str], _Lookup, int]] = deque()
        self._writing: deque[tuple[bytes, bytes]] = deque()
        self._flights = 0
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = False

    @property
    def asking(self) -> bool:
        """True while somebody waits for what Redis has."""
        return bool(self._waiting or self._flights)

    def get(self, keys: Sequence[bytes], names: Sequence[str], found: Found) -> None:
        """Calls `found` later, with an entry for every key: what Redis has, or None."""
        if self._link.blocked or len(self._waiting) + len(keys) > _WAITING:
            self.errors += len(keys)
            found([None] * len(keys))
            return
        lookup = _Lookup(len(keys), found)
        for at, key in enumerate(keys):
            self._waiting.append((key, names, lookup, at))
        if not self._due and self._flights < _FLIGHTS:
            self._due = True
            asyncio.get_running_loop().call_soon(self._take_off)

    def put(self, key: bytes, outputs: Outputs) -> None:
        """Writes `outputs` some time soon, or not at all."""
        if len(self._writing) >= _WRITING or sum(array.nbytes for array in outputs.values()) > _VALUE_BYTES:
            self.dropped += 1
            return
        self._writing.append((self._prefix + key, encode(outputs)))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    def _take_off(self) -> None:
        self._due = False
        while self._waiting and self._flights < _FLIGHTS:
            count = min(len(self._waiting), _KEYS)
            asked = [self._waiting.popleft() for _ in range(count)]
            self._flights += 1
            task = asyncio.get_running_loop().create_task(self._look(asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look(self, asked: list[tuple[bytes, Sequence[str], _Lookup, int]]) -> None:
        keys = [self._prefix + key for key, _, _, _ in asked]

        async def work(redis: Redis) -> Any:
            return await redis.mget(keys)

        values: list[bytes | None] = [None] * len(asked)
        failed = False
        try:
            values = await self._link.run(work, self._timeout)
        except RedisUnavailableError:
            failed = True
        finally:
            self._flights -= 1
            for (_, names, lookup, at), value in zip(asked, values, strict=True):
                outputs = decode(value, names) if isinstance(value, bytes) else None
                if failed:
                    self.errors += 1
                elif outputs is None:
                    self.misses += 1
                else:
                    self.hits += 1
                lookup.arrived(at, outputs)
            self._take_off()

    async def _write(self) -> None:
        try:
            while self._writing:
                count = min(len(self._writing), 256)
                batch = [self._writing.popleft() for _ in range(count)]

                async def work(redis: Redis, batch: list[tuple[bytes, bytes]] = batch) -> None:
                    pipe = redis.pipeline(transaction=False)
                    for key, value in batch:
                        pipe.set(key, value, px=self._ttl_ms)
                    await pipe.execute()

                try:
                    await self._link.run(work, _WRITE_SECONDS)
                except RedisUnavailableError:
                    self.dropped += count
        finally:
            self._writer = None

    async def close(self) -> None:
        """Writes what waits, for a second at most, and ends."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_WRITE_SECONDS)
            if self._writer is not None:
                self._writer.cancel()
        for task in list(self._tasks):
            task.cancel()


class _Lookup:
    """The keys of one caller, which may be answered in several flights."""

    __slots__ = ("_found", "_left", "_values")

    def __init__(self, count: int, found: Found) -> None:
        self._values: list[Outputs | None] = [None] * count
        self._left = count
        self._found = found

    def arrived(self, at: int, outputs: Outputs | None) -> None:
        self._values[at] = outputs
        self._left -= 1
        if not self._left:
            self._found(self._values)
