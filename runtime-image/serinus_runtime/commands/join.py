"""`serinus-runtime join`: compares two revisions that answer the same requests."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

import uvloop

from serinus_runtime.cli import JOIN_FLAGS
from serinus_runtime.durations import parse_duration
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.shadow import joiner


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises FailureError."""
    told = {name: str(value) for name in JOIN_FLAGS if (value := getattr(arguments, name, None)) is not None}
    settings = read({**os.environ, **{f"SERINUS_{_variable(name)}": value for name, value in told.items()}})
    try:
        code: int = uvloop.run(joiner.run(settings))
    except OSError as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot listen on port {settings.port}: {error}") from error
    return code


def _variable(flag: str) -> str:
    return flag.upper() if flag == "metrics_port" else f"JOIN_{flag.upper()}"


def read(environ: Mapping[str, str]) -> joiner.Settings:
    """The settings in `environ`. Raises FailureError(INVALID_CONFIG) that says what to write."""

    def need(name: str, what: str) -> str:
        if not (value := environ.get(name, "").strip()):
            raise FailureError(Reason.INVALID_CONFIG, f"{name} is empty: write {what}")
        return value

    def number(name: str, default: str, low: float, high: float) -> float:
        text = environ.get(name) or default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise FailureError(Reason.INVALID_CONFIG, f"{name} is {text!r}: write a number from {low:g} to {high:g}")
        return value

    targets = []
    for each in need("SERINUS_JOIN_PODS", "host:port of the pods").split(","):
        host, _, port = each.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_JOIN_PODS has {each!r}: write host:port")
        targets.append((host.strip("[]"), int(port)))
    live = need("SERINUS_JOIN_LIVE", "the revision that users see")
    candidate = need("SERINUS_JOIN_CANDIDATE", "the revision that gets mirrored requests")
    if live == candidate:
        raise FailureError(Reason.INVALID_CONFIG, "SERINUS_JOIN_LIVE and _CANDIDATE are the same revision")
    window = environ.get("SERINUS_JOIN_WINDOW") or "30s"
    try:
        seconds = parse_duration(window)
    except ValueError as error:
        raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_JOIN_WINDOW: {error}") from None
    tolerance = environ.get("SERINUS_JOIN_TOLERANCE", "")
    redact = environ.get("SERINUS_JOIN_REDACT", "").split(",")
    return joiner.Settings(
        live=live,
        candidate=candidate,
        targets=tuple(targets),
        namespace=environ.get("SERINUS_NAMESPACE", ""),
        deployment=environ.get("SERINUS_DEPLOYMENT", ""),
        tolerance=number("SERINUS_JOIN_TOLERANCE", "", 0.0, 1e300) if tolerance else None,
        samples=int(number("SERINUS_JOIN_SAMPLES", "0", 0, 1000)),
        redact=tuple(name.strip() for name in redact if name.strip()),
        window=min(max(seconds, 0.1), 600.0),
        host=environ.get("SERINUS_HOST", ""),
        port=int(number("SERINUS_METRICS_PORT", "8082", 0, 65535)),
    )
