"""Requests that an engine beside us is asked before it is asked in earnest: `warmup.json` of the model directory.

[{"path": "/v1/completions", "body": {"model": "m", "prompt": "hello", "max_tokens": 8}, "repeat": 3}]
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from serinus_runtime.durations import parse_duration
from serinus_runtime.proxy.health import ask
from serinus_runtime.proxy.pool import Pool
from serinus_runtime.proxy.problems import Problem

FILE = "warmup.json"
_MOST = 1000


class Warmup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request. A `body` that is a string is sent as it is, anything else as JSON. `status` 0: any 2xx is good."""

    path: str
    method: str = "POST"
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw()
    repeat: int = 1
    status: int = 0
    timeout: str = "2m"


class WarmupError(Exception):
    """The file cannot be used, or the engine did not answer as it should."""


def read(directory: Path) -> list[Warmup]:
    """The requests in `directory`; none where there is no such file. Raises WarmupError."""
    path = directory / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise WarmupError(f"{path} cannot be read: {error}") from None
    try:
        found = msgspec.json.decode(data, type=list[Warmup])
        for each in found:
            parse_duration(each.timeout)
    except (ValueError, RecursionError) as error:
        raise WarmupError(
            f'{path} cannot be used: {error}; write a list such as [{{"path": "/predict", "body": {{"x": 1}}}}]'
        ) from None
    if any(not each.path.startswith("/") or not _printable(each) for each in found):
        raise WarmupError(f"{path}: a path must begin with '/', and must have no spaces")
    if sum(max(each.repeat, 0) for each in found) > _MOST:
        raise WarmupError(f"{path} asks for more than {_MOST} requests")
    return found


async def run(requests: list[Warmup], pool: Pool, host: bytes) -> None:
    """Sends them one after the other. Raises WarmupError."""
    for request in requests:
        body = bytes(request.body)
        kind = b"application/json"
        if body[:1] == b'"':
            body, kind = msgspec.json.decode(body, type=str).encode(), b"text/plain; charset=utf-8"
        headers = {b"content-type": kind} if body else {}
        headers |= {name.lower().encode(): value.encode() for name, value in request.headers.items()}
        for _ in range(request.repeat):
            try:
                reply = await ask(
                    pool, request.method, request.path, host=host, headers=headers, body=body,
                    seconds=parse_duration(request.timeout),
                )  # fmt: skip
            except Problem as problem:
                raise WarmupError(f"{request.method} {request.path}: {problem}") from None
            good = reply.status == request.status if request.status else 200 <= reply.status < 300
            if not good:
                raise WarmupError(
                    f"{request.method} {request.path} was answered {reply.status}: {reply.body[:300].decode('latin-1')}"
                )


def _printable(request: Warmup) -> bool:
    words = (request.method, request.path, *request.headers, *request.headers.values())
    plain = all(word.isascii() and word.isprintable() for word in words)
    return plain and " " not in request.path and " " not in request.method
