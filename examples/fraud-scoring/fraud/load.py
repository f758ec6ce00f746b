"""An open-loop load generator: requests leave when the plan says so, whether or not earlier ones were answered.

    python -m fraud.load --url http://10.96.0.20 --host fraud.example.com --rate 200 --seconds 600 --out requests.csv

Three kinds of clients share the rate: 70 % reuse connections, 15 % connect anew for each request, 15 % reuse
connections and send four rows at once. It stops by itself; SIGTERM or SIGINT make it finish what is under way first.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import math
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import uvloop

from fraud.data import NUMERIC_COLUMNS, generate
from fraud.records import COLUMNS, Record, figures
from fraud.wire import Client, RequestError

KINDS: dict[str, tuple[float, int, bool]] = {
    "keepalive": (0.70, 1, True),
    "reconnect": (0.15, 1, False),
    "batch4": (0.15, 4, True),
}
"""Kind of client: share of the requests, rows per request, whether connections are kept."""

FLUSH_SECONDS = 0.25


@dataclass(frozen=True)
class Plan:
    """What to send where. Durations are seconds, `rate` requests per second.

    With `users`, each request is one of so many users' and says whose: X-User-Id is a number below `users`.
    """

    url: str
    out: Path
    host: str = "fraud.example.com"
    model: str = "fraud-scorer"
    rate: float = 200.0
    seconds: float = 60.0
    max_requests: int = 1_000_000
    max_in_flight: int = 1_000
    timeout: float = 5.0
    arrivals: str = "poisson"
    seed: int = 7
    users: int = 0
    key: str = ""
    """Sent as X-API-Key, where the model asks for one."""
    allow_remote: bool = False


class RefusedError(Exception):
    """The address is not local and nobody said that it may be."""


def local_address(url: str, *, allow_remote: bool) -> tuple[str, int]:
    """Host and port of a URL. Raises RefusedError for addresses outside this machine and private networks."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise RefusedError(f"--url must look like http://ADDRESS[:PORT], not {url!r}")
    port = parts.port or 80
    for *_, address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
        ip = ipaddress.ip_address(address[0])
        if not (ip.is_private or ip.is_loopback or ip.is_link_local or allow_remote):
            raise RefusedError(
                f"{url} is at {ip}, which is not a local or private address; --allow-remote sends load anyway"
            )
    return parts.hostname, port


def bodies(rows: int, count: int, seed: int) -> list[bytes]:
    """JSON bodies of the Open Inference Protocol with generated transactions."""
    data = generate(rows * count, seed)
    result = []
    for start in range(0, rows * count, rows):
        end = start + rows
        values = [round(float(v), 4) for v in data.features[start:end].ravel()]
        categories = [str(v) for v in data.merchant_category[start:end, 0]]
        width = len(NUMERIC_COLUMNS)
        inputs = [
            {"name": "features", "shape": [rows, width], "datatype": "FP32", "data": values},
            {"name": "merchant_category", "shape": [rows, 1], "datatype": "BYTES", "data": categories},
        ]
        result.append(json.dumps({"inputs": inputs}, separators=(",", ":")).encode())
    return result


def request(plan: Plan, body: bytes, *, keep: bool) -> bytes:
    """The bytes on the wire."""
    key = f"X-API-Key: {plan.key}\r\n" if plan.key else ""
    head = (
        f"POST /v2/models/{plan.model}/infer HTTP/1.1\r\nHost: {plan.host}\r\nContent-Type: application/json\r\n{key}"
        f"User-Agent: serinus-load\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + body


def signed(payload: bytes, user: int) -> bytes:
    """A request that says which user sends it."""
    first = payload.index(b"\r\n") + 2
    return payload[:first] + b"X-User-Id: %d\r\n" % user + payload[first:]


class Generator:
    """Runs one plan and writes its records."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        host, port = local_address(plan.url, allow_remote=plan.allow_remote)
        self._client = Client(host, port, plan.timeout)
        self._random = random.Random(plan.seed)
        self._pool = {
            kind: [request(plan, body, keep=keep) for body in bodies(rows, 500 if rows > 1 else 2000, plan.seed)]
            for kind, (_, rows, keep) in KINDS.items()
        }
        self._stop = asyncio.Event()
        self._records: list[Record] = []
        self._written = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._worst_lag = 0.0

    def stop(self) -> None:
        """No new requests; `run` returns when those under way are answered."""
        self._stop.set()

    async def run(self) -> list[Record]:
        """Sends everything, returns all records. The file is complete when this returns."""
        loop = asyncio.get_running_loop()
        start, epoch = loop.time(), time.time()
        with self.plan.out.open("w", encoding="ascii", errors="replace") as file:
            file.write(",".join(COLUMNS) + "\n")
            writer = asyncio.create_task(self._keep_writing(file))
            try:
                for offset in self._offsets():
                    if not await self._wait_until(start + offset):
                        break
                    self._dispatch(start + offset, epoch + offset)
                if self._in_flight:
                    await asyncio.wait(self._in_flight)
            finally:
                writer.cancel()
                self._client.close()
                self._write(file)
        return self._records

    def summary(self) -> dict[str, object]:
        """What happened, as one JSON object. `worstLagMs` is how late the generator itself was at most."""
        errors = Counter(r.error or str(r.code) for r in self._records if r.failed)
        versions = {v: _plain(r for r in self._records if r.version == v) for v in self._versions()}
        return {
            "requests": len(self._records),
            "failed": sum(errors.values()),
            "errors": dict(errors),
            "all": _plain(self._records),
            "versions": versions,
            "clients": dict(Counter(r.client for r in self._records)),
            "worstLagMs": round(self._worst_lag * 1000, 1),
        }

    def _versions(self) -> list[str]:
        return sorted({r.version for r in self._records})

    def _offsets(self) -> Iterator[float]:
        offset, step = 0.0, 1.0 / self.plan.rate
        for _ in range(self.plan.max_requests):
            offset += self._random.expovariate(self.plan.rate) if self.plan.arrivals == "poisson" else step
            if offset > self.plan.seconds:
                return
            yield offset

    async def _wait_until(self, moment: float) -> bool:
        """False when the generator was told to stop."""
        wait = moment - asyncio.get_running_loop().time()
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._stop.wait()
            except TimeoutError:
                pass
        elif len(self._in_flight) % 16 == 0:
            await asyncio.sleep(0)  # late: let answers be read before more is sent
        return not self._stop.is_set()

    def _dispatch(self, intended: float, at: float) -> None:
        kind = self._random.choices(list(KINDS), [share for share, _, _ in KINDS.values()])[0]
        rows = KINDS[kind][1]
        if len(self._in_flight) >= self.plan.max_in_flight:
            self._records.append(Record(at, 0.0, 0, "client_limit", "", "", kind, rows))
            return
        payload = self._random.choice(self._pool[kind])
        if self.plan.users:
            payload = signed(payload, self._random.randrange(self.plan.users))
        task = asyncio.create_task(self._send(intended, at, kind, rows, payload))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _send(self, intended: float, at: float, kind: str, rows: int, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        self._worst_lag = max(self._worst_lag, sent - intended)
        code, error, version, revision = 0, "", "", ""
        try:
            answer = await self._client.ask(payload, keep=KINDS[kind][2])
            code, version, revision = answer.code, answer.version, answer.revision
        except RequestError as failure:
            error = failure.kind
        except Exception as bug:  # a request must never vanish from the count
            error = f"generator-{type(bug).__name__}"
        latency = (loop.time() - min(intended, sent)) * 1000
        self._records.append(Record(at, latency, code, error, version, revision, kind, rows))

    async def _keep_writing(self, file: TextIO) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._write(file)

    def _write(self, file: TextIO) -> None:
        new = self._records[self._written :]
        self._written += len(new)
        file.writelines(record.line() for record in new)
        file.flush()


def _plain(records: Iterable[Record]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else round(v, 3) for k, v in asdict(figures(records)).items()}


async def run(plan: Plan) -> Generator:
    """Runs a plan to its end, or to SIGTERM or SIGINT."""
    generator = Generator(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.stop)
    await generator.run()
    return generator


def main() -> int:
    """The command line; prints the summary and writes it beside the records as `<out>.summary.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="http://ADDRESS[:PORT] of the gateway")
    parser.add_argument("--host", default=Plan.host, help="Host header")
    parser.add_argument("--model", default=Plan.model, help="served name of the model")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="requests per second")
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--max-requests", type=int, default=Plan.max_requests)
    parser.add_argument("--max-in-flight", type=int, default=Plan.max_in_flight)
    parser.add_argument("--timeout", type=float, default=Plan.timeout, help="seconds per request")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default=Plan.arrivals)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--users", type=int, default=Plan.users, help="so many users, told apart by X-User-Id")
    parser.add_argument("--key", default=Plan.key, help="API key of the client")
    parser.add_argument("--out", type=Path, required=True, help="CSV of all requests, written while it runs")
    parser.add_argument("--allow-remote", action="store_true", help="send load to a public address")
    plan = Plan(**vars(parser.parse_args()))
    try:
        generator = uvloop.run(run(plan))
    except (RefusedError, OSError) as error:
        print(f"fraud.load: {error}", file=sys.stderr)
        return 2
    summary = json.dumps(generator.summary(), indent=2)
    plan.out.with_suffix(plan.out.suffix + ".summary.json").write_text(summary + "\n")
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
