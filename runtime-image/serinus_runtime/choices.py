"""How the settings of the door, of Redis, of jobs and of traces are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.ingress.jwks import check_address
from serinus_runtime.ingress.ratelimit import Rate, parse_rate
from serinus_runtime.ingress.tokens import ALGORITHMS
from serinus_runtime.redislink import check_url
from serinus_runtime.tracing import endpoint

__all__ = [
    "Rate", "algorithms", "check_address", "check_url", "header_name", "hosts", "otlp_endpoint", "otlp_url",
    "parse_rate", "some_of", "words",
]  # fmt: skip

_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_HOST = re.compile(r"[a-z0-9.-]{1,253}(:\d{1,5})?", re.ASCII)


def some_of(*words: str) -> Callable[[str], frozenset[str]]:
    """Reads a list of `words`, or `none`."""

    def parse(text: str) -> frozenset[str]:
        chosen = frozenset(filter(None, (part.strip() for part in text.split(","))))
        if chosen != {"none"} and not chosen <= set(words):
            raise ValueError(f"{text!r} is not known: write some of {','.join(words)}, or none")
        return chosen - {"none"}

    return parse


def words(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def algorithms(text: str) -> tuple[str, ...]:
    """Algorithms of signatures with a public key. Raises ValueError."""
    found = words(text)
    if not found or not set(found) <= set(ALGORITHMS):
        raise ValueError(f"{text!r} is not known: write some of {','.join(ALGORITHMS)}")
    return found


def header_name(text: str) -> str:
    """The name of a header, in lower case. Raises ValueError."""
    if _HEADER.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not the name of a header: write one such as X-Forwarded-For")
    return text.lower()


def hosts(text: str) -> frozenset[str]:
    """A list of hosts, or of `host:port`, in lower case. Raises ValueError."""
    found = frozenset(filter(None, (part.strip().lower() for part in text.split(","))))
    for host in found:
        if _HOST.fullmatch(host) is None:
            raise ValueError(f"{host!r} is not a host: write names such as hooks.shop.example, or with a port, a:8443")
    return found


def otlp_url(text: str) -> str:
    """A whole address of an OTLP/HTTP collector. Raises ValueError."""
    return endpoint({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": text})


def otlp_endpoint(environ: Mapping[str, str]) -> str:
    """Where spans go, by OpenTelemetry's own variables. Raises FailureError."""
    try:
        return endpoint(environ)
    except ValueError as error:
        raise FailureError(Reason.INVALID_CONFIG, str(error)) from None
