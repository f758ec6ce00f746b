"""Records in Redis, so that any replica can answer a poll.

A pending record lives for half a minute unless whoever works on the job says again that it does: jobs of a replica that
died are forgotten instead of pending for ever. A cancelled job leaves a mark, so that its result is not kept.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from serinus_runtime.jobs.records import Record, StoreUnavailableError
from serinus_runtime.redislink import RedisLink, RedisUnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

PENDING_SECONDS = 30.0
_CANCELLED_SECONDS = 120.0
_WITHIN = 1.0
_FINISH = """
if redis.call('GET', KEYS[1]) == ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_KEEP = """
local known = redis.call('GET', KEYS[1])
if known == ARGV[3] then return 1 end
if not known or known == ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 0
"""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class RedisStore:
    """See the module's text. `prefix` tells models apart; results are kept for `ttl` seconds."""

    shared = True

    def __init__(self, link: RedisLink, prefix: str, ttl: float) -> None:
        self._link = link
        self._prefix = prefix
        self._ttl_ms = max(1, int(ttl * 1e3))

    async def begin(self, job: str, record: Record) -> None:
        """See Store."""
        key, value = self._key(job), _encoder.encode(record)
        await self._run(lambda redis: redis.set(key, value, px=int(PENDING_SECONDS * 1e3)))

    async def finish(self, job: str, record: Record) -> bool:
        """See Store."""
        arguments: tuple[Any, ...] = (
            self._key(job), _encoder.encode(record), self._ttl_ms, _encoder.encode(_mark(record.client)),
        )  # fmt: skip
        return bool(await self._run(lambda redis: cast("Awaitable[Any]", redis.eval(_FINISH, 1, *arguments))))

    async def get(self, job: str) -> Record | None:
        """See Store."""
        key = self._key(job)
        found = _read(await self._run(lambda redis: redis.get(key)))
        return None if found is None or found.cancelled else found

    async def cancel(self, job: str, client: str) -> None:
        """See Store."""
        key, mark = self._key(job), _encoder.encode(_mark(client))
        await self._run(lambda redis: redis.set(key, mark, px=int(_CANCELLED_SECONDS * 1e3)))

    async def keep(self, jobs: dict[str, Record]) -> list[str]:
        """See Store."""
        names = list(jobs)
        cancelled: list[str] = []
        for start in range(0, len(names), 256):
            part = names[start : start + 256]

            async def work(redis: Redis, part: list[str] = part) -> Any:
                pipe = redis.pipeline(transaction=False)
                for job in part:
                    mark = _encoder.encode(_mark(jobs[job].client))
                    pipe.eval(_KEEP, 1, self._key(job), _encoder.encode(jobs[job]), int(PENDING_SECONDS * 1e3), mark)
                return await pipe.execute()

            answers = await self._run(work)
            cancelled += [job for job, answer in zip(part, answers, strict=True) if answer == 1]
        return cancelled

    async def close(self) -> None:
        """See Store."""

    def _key(self, job: str) -> str:
        return f"{self._prefix}:{job}"

    async def _run(self, work: Any) -> Any:
        try:
            return await self._link.run(work, _WITHIN)
        except RedisUnavailableError as error:
            raise StoreUnavailableError(str(error)) from None


def _mark(client: str) -> Record:
    return Record(client, cancelled=True)


def _read(value: object) -> Record | None:
    if not isinstance(value, bytes):
        return None
    try:
        return _decoder.decode(value)
    except msgspec.DecodeError:
        return None
