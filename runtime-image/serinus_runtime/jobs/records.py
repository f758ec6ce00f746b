"""What is known of a job, and where it is kept."""

from __future__ import annotations

import secrets
from typing import Protocol

import msgspec

ID_BYTES = 24
"""Of randomness in an id: whoever knows it may fetch the result."""


class Result(msgspec.Struct, array_like=True, frozen=True):
    """What the request would have been answered; `headers` are whole lines."""

    status: int
    content_type: bytes
    headers: bytes
    body: bytes

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.body) + len(self.headers) + 200


class Record(msgspec.Struct, array_like=True, frozen=True):
    """A job as others may see it. Pending: without a result."""

    client: str
    result: Result | None = None
    cancelled: bool = False


class StoreUnavailableError(Exception):
    """The store does not answer now."""


class Store(Protocol):
    """Keeps records for their time. Times are in seconds. All methods raise StoreUnavailableError."""

    shared: bool
    """True: other replicas see the same records."""

    async def begin(self, job: str, record: Record) -> None:
        """A new job, pending."""

    async def finish(self, job: str, record: Record) -> bool:
        """Its result. False: it was cancelled meanwhile, and is not kept."""

    async def get(self, job: str) -> Record | None:
        """What is known; None: nothing, or not any more."""

    async def cancel(self, job: str, client: str) -> None:
        """Forgets it, and what may still come of it."""

    async def keep(self, jobs: dict[str, Record]) -> list[str]:
        """Says that pending jobs are still worked on, and tells which of them were cancelled."""

    async def close(self) -> None:
        """Ends what was begun."""


def new_id() -> str:
    """An id that nobody guesses, safe in a path."""
    return secrets.token_urlsafe(ID_BYTES)
