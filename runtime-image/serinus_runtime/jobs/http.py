"""Jobs over HTTP: `Prefer: respond-async` (RFC 7240) or `/v2/models/M/async` submits, `/v2/requests/ID` is the job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from serinus_runtime import logs
from serinus_runtime.http import Exchange
from serinus_runtime.ingress.door import Admitted, Door, Refused
from serinus_runtime.ingress.http import address_of
from serinus_runtime.jobs.callbacks import HEADER, check_callback
from serinus_runtime.jobs.records import Record, StoreUnavailableError
from serinus_runtime.jobs.service import Job, Jobs, JobsFullError
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.state import GOING

PATH = b"/v2/requests/"
_SOON = b"retry-after: 1\r\n"
_NOT_OF_THE_JOB = (
    b"prefer", b"authorization", b"x-api-key", HEADER, b"x-request-timeout", b"request-timeout", b"expect",
    b"x-envoy-expected-rq-timeout-ms", b"x-priority", b"connection",
)  # fmt: skip
"""Headers that are for the one who accepts it."""


def prefers_async(headers: Mapping[bytes, bytes]) -> bool:
    """True when the client would rather not wait: the preference `respond-async`."""
    given = headers.get(b"prefer")
    return given is not None and any(
        part.partition(b";")[0].strip().lower() == b"respond-async" for part in given.split(b",")
    )


class JobsFront:
    """What the HTTP port asks. `draining` tells whether the process is about to go."""

    def __init__(self, jobs: Jobs, door: Door, draining: Callable[[], bool]) -> None:
        self.jobs = jobs
        self._door = door
        self._draining = draining
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, exchange: Exchange, target: bytes) -> None:
        """Accepts the request to `target`, or says why not."""
        admitted = self._door.admit(exchange.headers, address_of(exchange), exchange.received, "async")
        if isinstance(admitted, Refused):
            _error(exchange, admitted.status, admitted.message, admitted.headers)
            return
        if self._draining() and not self.jobs.store.shared:
            # What it keeps goes with it.
            _error(exchange, GOING.status, GOING.message, GOING.headers)
            return
        headers = exchange.headers
        try:
            callback = check_callback(headers[HEADER], self.jobs.callbacks.hosts) if HEADER in headers else ""
        except InvalidRequestError as error:
            _error(exchange, 400, str(error), admitted.headers)
            return
        kept = {name: value for name, value in headers.items() if name not in _NOT_OF_THE_JOB}
        job = Job(admitted.client, target, kept, exchange.body, callback)
        exchange.body = b""
        self._begin(exchange, self._submit(exchange, job, admitted))

    async def _submit(self, exchange: Exchange, job: Job, admitted: Admitted) -> None:
        lines = admitted.headers
        try:
            await self.jobs.submit(job)
        except JobsFullError:
            later = b"retry-after: %d\r\n" % self.jobs.retry_after()
            _error(exchange, 429, "too many jobs are kept: fetch or delete some, or try again later", lines + later)
            return
        if prefers_async(exchange.headers):
            lines += b"preference-applied: respond-async\r\n"
        lines += b"location: %b%b\r\n" % (PATH, job.id.encode())
        _json(exchange, 202, {"id": job.id, "status": "pending"}, lines + _SOON)

    def handle(self, exchange: Exchange, path: bytes) -> None:
        """GET or DELETE of one job."""
        if exchange.method not in (b"GET", b"HEAD", b"DELETE"):
            _error(exchange, 405, "only GET, HEAD and DELETE are understood here", b"allow: GET, HEAD, DELETE\r\n")
            return
        known = self._door.who(exchange.headers, "async")
        if isinstance(known, Refused):
            _error(exchange, known.status, known.message, known.headers)
            return
        client = known.name if known is not None else ""
        job = path[len(PATH) :].decode("latin-1")
        self._begin(exchange, self._one(exchange, job, client))

    async def _one(self, exchange: Exchange, job: str, client: str) -> None:
        record = await self.jobs.find(job) if 0 < len(job) <= 64 else None
        if record is None or record.client != client:
            _error(exchange, 404, "no such job: it is unknown, was deleted, or its time is over")
        elif exchange.method == b"DELETE":
            await self.jobs.cancel(job, client)
            _json(exchange, 200, {"id": job, "status": "deleted" if record.result else "cancelled"})
        elif record.result is None:
            _json(exchange, 202, {"id": job, "status": "pending"}, _SOON)
        else:
            _reply(exchange, record)

    def _begin(self, exchange: Exchange, work: Awaitable[None]) -> None:
        task = asyncio.get_running_loop().create_task(_answering(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answering(exchange: Exchange, work: Awaitable[None]) -> None:
    try:
        await work
    except StoreUnavailableError as error:
        logs.event("warning", "the store of jobs does not answer", error=str(error))
        _error(exchange, 503, "the store of results does not answer: try again", _SOON)
    except Exception as error:
        logs.event("error", "a request for a job failed", error=repr(error))
        _error(exchange, 500, "internal error")


def _reply(exchange: Exchange, record: Record) -> None:
    result = record.result
    assert result is not None
    exchange.respond(result.status, result.body, result.content_type, result.headers)


def _json(exchange: Exchange, status: int, body: object, headers: bytes = b"") -> None:
    exchange.respond(status, msgspec.json.encode(body), headers=headers)


def _error(exchange: Exchange, status: int, message: str, headers: bytes = b"") -> None:
    _json(exchange, status, {"error": message}, headers)
