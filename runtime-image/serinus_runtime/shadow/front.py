"""`/tap` on the metrics port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import msgspec

from serinus_runtime import logs
from serinus_runtime.datatypes import Array
from serinus_runtime.http import Exchange
from serinus_runtime.predictionlog import Prediction
from serinus_runtime.shadow.admission import Admission
from serinus_runtime.shadow.records import ALL, CONTENT_TYPE, Page, Sample, Told, place
from serinus_runtime.shadow.tap import Tap
from serinus_runtime.shadow.telling import Teller, Wanted

_SAMPLES = 16
"""Samples of one page, those with the smallest places: preprocessing runs once more for each."""
COPIES_SECONDS = 2.0
"""For how long after a joiner's last word requests count as copies: a shadow that ends must blind nobody."""
Prepare = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class TapFront:
    """Answers pages of the tap in msgpack to those whom `admission` lets in.

    Args:
        mirroring: told whether this pod's requests are copies: while a joiner names its revision the candidate.
        prepare: what preprocessing makes of inputs; runs on a thread of its own, for samples only.
    """

    def __init__(
        self,
        tap: Tap,
        teller: Teller,
        admission: Admission,
        prepare: Prepare | None = None,
        mirroring: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._tap = tap
        self._teller = teller
        self._admission = admission
        self._prepare = prepare
        self._mirroring = mirroring
        self._copies_until = 0.0
        self._encoder = msgspec.msgpack.Encoder()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool: ThreadPoolExecutor | None = None

    def handle(self, exchange: Exchange) -> None:
        """Answers GET /tap?process=P&after=N&inputs=N&samples=N&redact=a,b."""
        address = str(getattr(exchange.connection, "address", ""))
        try:
            asked = _asked(exchange.target)
        except ValueError as error:
            exchange.respond(400, msgspec.json.encode({"error": f"{error}: numbers are wanted"}))
            return
        if self._admission.known(address) and not asked[2].samples_below:
            self._answer(exchange, self._page(*asked)[0])
            return
        task = asyncio.get_running_loop().create_task(self._later(exchange, address, *asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        self._tap.sweep(now)
        if self._copies_until and now >= self._copies_until:
            self._copies_until = 0.0
            self._mirroring(False)
        if not self._tap.open and self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def close(self) -> None:
        """Answers nobody any more."""
        for task in self._tasks:
            task.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def _later(self, exchange: Exchange, address: str, process: str, after: int, wanted: Wanted) -> None:
        if not await self._admission.admits(address):
            names = ", ".join(self._admission.names) or "nobody"
            text = f"{address} may not read predictions here: {names} may; see SERINUS_TAP"
            exchange.respond(403, msgspec.json.encode({"error": text}))
            return
        page, sampled = self._page(process, after, wanted)
        if sampled and self._prepare is not None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "serinus-tap")
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._pool, self._fill, sampled, wanted)
        self._answer(exchange, page)

    def _page(self, process: str, after: int, wanted: Wanted) -> tuple[Page, list[tuple[Told, Prediction]]]:
        sampled: list[tuple[Told, Prediction]] = []

        def make(prediction: Prediction) -> Told:
            record = self._teller.tell(prediction, wanted)
            if record.sample is not None:
                sampled.append((record, prediction))
            return record

        now = time.monotonic()
        page = self._tap.read(process, after, make, now)
        if wanted.candidate and wanted.candidate == page.revision:
            self._copies_until = now + COPIES_SECONDS
            self._mirroring(True)
        sampled.sort(key=lambda each: place(each[0].id))
        for record, _ in sampled[_SAMPLES:]:
            record.sample = None
        return page, sampled[:_SAMPLES]

    def _fill(self, sampled: list[tuple[Told, Prediction]], wanted: Wanted) -> None:
        assert self._prepare is not None
        for record, prediction in sampled:
            if record.sample is None or not prediction.inputs:
                continue
            try:
                made = self._prepare(prediction.inputs)
            except Exception as error:
                # What the code complains of may be the very value that nobody may see.
                text = type(error).__name__ if self._teller.hides(prediction.inputs, wanted) else repr(error)[:300]
                logs.event("warning", "a sample could not be preprocessed", error=text)
                continue
            record.sample = Sample(record.sample.raw, self._teller.prepared(prediction.inputs, made, wanted))

    def _answer(self, exchange: Exchange, page: Page) -> None:
        exchange.respond(200, self._encoder.encode(page), CONTENT_TYPE)


def _asked(target: bytes) -> tuple[str, int, Wanted]:
    query = parse_qs(target.partition(b"?")[2].decode("latin-1"))

    def number(name: str, default: int) -> int:
        return min(max(int(query.get(name, [str(default)])[0]), -1), ALL if name != "after" else 1 << 62)

    redact = frozenset(name for name in query.get("redact", [""])[0].split(",") if name)
    candidate = query.get("candidate", [""])[0]
    wanted = Wanted(number("inputs", 0), number("samples", 0), redact, candidate)
    return query.get("process", [""])[0], number("after", -1), wanted
