"""How the engine beside us is reached and treated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from urllib.parse import urlsplit

import msgspec

from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and bytes."""

    host: str
    port: int
    authority: bytes
    """What requests without a Host name as theirs."""
    timeout: float
    """From a request to the head of its answer, and between two pieces of an answer."""
    idle: float
    """A tunnel through which nothing has passed for so long is ended."""
    counted: re.Pattern[bytes] | None
    """Paths that count as inference requests even where they are asked with GET."""
    models: dict[str, str]
    max_tokens: int
    job_bytes: int
    """Of an answer that is kept for a job."""


def read(config: Config) -> Settings:
    """The settings in `config`. Raises FailureError(INVALID_CONFIG)."""
    host, port = parse_url(config.proxy_url)
    return Settings(
        host=host,
        port=port,
        authority=(f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode(),
        timeout=config.proxy_timeout,
        idle=config.proxy_idle_timeout,
        counted=_pattern(config.proxy_paths),
        models=dict(config.proxy_models) or {config.model_name: config.model_name},
        max_tokens=config.max_tokens,
        job_bytes=config.async_max_bytes,
    )


def parse_url(url: str, variable: str = "SERINUS_PROXY_URL", example: str = "http://127.0.0.1:9000") -> tuple[str, int]:
    """Host and port of the engine. Raises FailureError(INVALID_CONFIG) that says what to write."""
    wrong = f"{variable}: {url!r} cannot be used: write where the engine listens, such as {example}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise FailureError(Reason.INVALID_CONFIG, f"{wrong} ({error})") from None
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise FailureError(Reason.INVALID_CONFIG, f"{wrong}; it has no path, and encryption ends before this server")
    if parts.username is not None:
        raise FailureError(Reason.INVALID_CONFIG, f"{wrong}; credentials do not belong there")
    return host, 80 if port is None else port


def _pattern(paths: Sequence[str]) -> re.Pattern[bytes] | None:
    if not paths:
        return None
    return re.compile(b"|".join(translate(path).encode() for path in paths))
