"""How long a client waits, by what it says: work that nobody waits for any more is not done.

Understood are `X-Request-Timeout` and `Request-Timeout` (seconds, or with a unit), Envoy's
`x-envoy-expected-rq-timeout-ms`, gRPC's `grpc-timeout`, and the parameter `timeout` of the protocol (microseconds, as
Triton reads it). The shortest counts. Times are seconds; names of headers in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from serinus_runtime.durations import parse_duration
from serinus_runtime.problems import InvalidRequestError

_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_GRPC = re.compile(rb"(\d{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_OWN = (b"x-request-timeout", b"request-timeout")
_ENVOY = b"x-envoy-expected-rq-timeout-ms"
_GRPC_TIMEOUT = b"grpc-timeout"


def timeout_of(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds that the client waits by its headers, or None. Raises InvalidRequestError."""
    shortest: float | None = None
    for name in _OWN:
        if name in headers:
            shortest = _shorter(shortest, _own(name, headers[name]))
    if _ENVOY in headers:
        value = headers[_ENVOY]
        # A proxy's own header: a client that wrote nonsense there is not the one who would read our answer.
        if value.isdigit() and 0 < len(value) < 16 and int(value) > 0:
            shortest = _shorter(shortest, int(value) / 1e3)
    if _GRPC_TIMEOUT in headers:
        shortest = _shorter(shortest, _grpc(headers[_GRPC_TIMEOUT]))
    return shortest


def timeout_parameter(value: object) -> float | None:
    """Seconds in the parameter `timeout` of a request; 0 is none. Raises InvalidRequestError."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InvalidRequestError(f"parameters: timeout must be a whole number of microseconds, not {value!r:.60}")
    return value / 1e6 or None


def _shorter(known: float | None, found: float) -> float:
    return found if known is None else min(known, found)


def _own(name: bytes, value: bytes) -> float:
    text = value.strip()
    try:
        seconds = float(text) if _SECONDS.fullmatch(text) else parse_duration(text.decode("latin-1"))
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise InvalidRequestError(
            f"{name.decode()} is {value[:40].decode('latin-1')!r}; write seconds above 0, or a number and a unit, "
            "such as 250ms"
        )
    return seconds


def _grpc(value: bytes) -> float:
    found = _GRPC.fullmatch(value)
    if found is None:
        raise InvalidRequestError(
            f"grpc-timeout is {value[:40].decode('latin-1')!r}; it must be at most 8 digits and one of H M S m u n"
        )
    return int(found[1]) * _GRPC_UNITS[found[2]]
