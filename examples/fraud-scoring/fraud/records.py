"""What the load generator writes down, one line of CSV per request, and how others read it while it grows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("at", "latency_ms", "code", "error", "version", "revision", "client", "rows")


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    `at` is the moment it was meant to be sent (seconds since the epoch), `latency_ms` runs from that moment to the last
    byte of the answer, so a stalled server or a late generator shows instead of hiding. `code` is the HTTP status, or 0
    with `error` naming what went wrong: connect, reset, timeout, protocol or client_limit. `version` and `revision` are
    what the answer's headers said, empty when there was no answer from a model server.
    """

    at: float
    latency_ms: float
    code: int
    error: str
    version: str
    revision: str
    client: str
    rows: int

    @property
    def failed(self) -> bool:
        """Anything but a 2xx answer."""
        return not 200 <= self.code < 300

    def line(self) -> str:
        """One line of CSV with its newline. Header values are stripped of commas, so no quoting is needed."""
        version, revision = (value.replace(",", "_") for value in (self.version, self.revision))
        return (
            f"{self.at:.6f},{self.latency_ms:.3f},{self.code},{self.error},{version},{revision},"
            f"{self.client},{self.rows}\n"
        )


def parse(line: str) -> Record:
    """The inverse of `Record.line`. Raises ValueError for anything else."""
    at, latency, code, error, version, revision, client, rows = line.rstrip("\n").split(",")
    return Record(float(at), float(latency), int(code), error, version, revision, client, int(rows))


class Reader:
    """Follows a log that another process is still writing; `poll` returns what came since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> list[Record]:
        """New complete lines; none when the file does not exist yet."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        lines = data[:end].decode().splitlines()
        return [parse(line) for line in lines if not line.startswith("at,")]


def read(path: Path) -> list[Record]:
    """All records of a finished log."""
    return Reader(path).poll()


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile (`share` 0..1): a value that really occurred; NaN when there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Figures:
    """Counts and latencies (milliseconds) of some records. Latencies are those of requests that got a 2xx answer."""

    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    worst: float

    @property
    def error_rate(self) -> float:
        """Failed requests as a share, 0..1."""
        return self.failed / self.requests if self.requests else 0.0


def figures(records: Iterable[Record]) -> Figures:
    """Sums up records; NaN latencies when nothing was answered."""
    chosen = list(records)
    good = [r.latency_ms for r in chosen if not r.failed]
    return Figures(
        requests=len(chosen),
        failed=sum(r.failed for r in chosen),
        p50=percentile(good, 0.50),
        p95=percentile(good, 0.95),
        p99=percentile(good, 0.99),
        worst=max(good, default=math.nan),
    )


def window(records: Sequence[Record], seconds: float, until: float | None = None) -> list[Record]:
    """Those of the last `seconds` before `until` (default: the newest answer). `records` may be in any order."""
    if not records:
        return []
    end = max(r.at + r.latency_ms / 1000 for r in records[-2000:]) if until is None else until
    return [r for r in records if end - seconds <= r.at <= end]
