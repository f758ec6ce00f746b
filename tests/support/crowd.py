"""Users who come back: many clients with their own cookies and headers, over a few connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECTIONS = 16


@dataclass
class User:
    """One client: what it sends, the cookies it was given, and who served it."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)
    """Answers by revision."""
    failures: Counter[str] = field(default_factory=Counter)
    """Answers that were none, by status line."""


def visit(url: str, host: str, users: Sequence[User], times: int, path: str = "/v2") -> None:
    """Every user comes `times` times, in turns; `served` starts anew."""
    for user in users:
        user.served, user.failures = Counter(), Counter()
    asyncio.run(_visit(url, host, [user for _ in range(times) for user in users], path))


def shares(users: Iterable[User]) -> Counter[str]:
    """Users by the revision that served all their requests; `both` for those who saw more than one."""
    return Counter(next(iter(user.served)) if len(user.served) == 1 else "both" for user in users)


def failures(users: Iterable[User]) -> Counter[str]:
    """What went wrong, by status line."""
    total: Counter[str] = Counter()
    for user in users:
        total.update(user.failures)
    return total


async def _visit(url: str, host: str, visits: list[User], path: str) -> None:
    parts = urlsplit(url)
    waiting = iter(visits)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            for user in waiting:
                lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in user.headers.items())]
                if user.cookies:
                    lines.append("Cookie: " + "; ".join(f"{k}={v}" for k, v in user.cookies.items()))
                writer.write("\r\n".join([*lines, "", ""]).encode())
                await _answer(reader, user)
        finally:
            writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))


async def _answer(reader: asyncio.StreamReader, user: User) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    length, revision, chunked = 0, "", False
    for line in head[1:]:
        name, _, value = line.partition(":")
        match name.lower():
            case "content-length":
                length = int(value)
            case "transfer-encoding":
                chunked = True
            case "x-serinus-revision":
                revision = value.strip()
            case "set-cookie":
                cookie, _, text = value.strip().partition(";")[0].partition("=")
                user.cookies[cookie] = text
    assert not chunked, "an answer of this size is not chunked"
    await reader.readexactly(length)
    if " 200 " in f"{head[0]} " and revision:
        user.served[revision] += 1
    else:
        user.failures[head[0]] += 1
