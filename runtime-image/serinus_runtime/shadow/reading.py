"""Reads the taps of all pods behind a name, one connection to each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import quote

import msgspec

from serinus_runtime import logs
from serinus_runtime.shadow.admission import resolve
from serinus_runtime.shadow.records import PATH, Page

PAUSE = 0.5
"""Seconds between two looks at a pod that has no more to tell."""
STRANGER_PAUSE = 20.0
"""The same for pods of other revisions."""
LOOKUP_SECONDS = 2.0
_TIMEOUT = 5.0
_MOST_BYTES = 64 << 20
_MOST_PODS = 1000
_DECODER = msgspec.msgpack.Decoder(Page)
Asking = Callable[[], str]
"""The part of the query that says what is wanted beside the answers."""
Take = Callable[[Page], bool]
"""Takes a page; false: the pod is none of ours."""


class TapError(Exception):
    """A tap did not answer as one should."""


class PodReader:
    """Reads one pod until it is cancelled. Trouble is told once, and tried again."""

    def __init__(self, host: str, port: int, asking: Asking, take: Take) -> None:
        self._host = host
        self._port = port
        self._asking = asking
        self._take = take
        self._process = ""
        self._after = -1
        self._told = ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Pages, one after the other."""
        pause = PAUSE
        try:
            while True:
                try:
                    page = await asyncio.wait_for(self._ask(), _TIMEOUT)
                except (OSError, EOFError, TimeoutError, TapError, msgspec.DecodeError, ValueError) as error:
                    self._hang_up()
                    if str(error) != self._told:
                        self._told = str(error)
                        logs.event("warning", "a pod cannot be read", pod=self._host, error=repr(error)[:300])
                    pause = 2 * PAUSE
                else:
                    self._told = ""
                    self._process, self._after = page.process, page.next
                    pause = (0.0 if page.more else PAUSE) if self._take(page) else STRANGER_PAUSE
                await asyncio.sleep(pause)
        finally:
            self._hang_up()

    async def _ask(self) -> Page:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        query = f"?process={quote(self._process)}&after={self._after}{self._asking()}".encode()
        writer.write(b"GET " + PATH + query + b" HTTP/1.1\r\nhost: tap\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = -1
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
        if not 0 <= length <= _MOST_BYTES:
            raise TapError("an answer without a length, or one that is too long")
        body = await reader.readexactly(length)
        if not head.startswith(b"http/1.1 200 "):
            raise TapError(f"{head[9:12].decode('latin-1')}: {body[:300].decode('utf-8', 'replace')}")
        return _DECODER.decode(body)

    def _hang_up(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].close()
            self._streams = None


class Readers:
    """One reader for each address that `targets` (host:port) have now, looked up every two seconds."""

    def __init__(
        self,
        targets: Sequence[tuple[str, int]],
        asking: Asking,
        take: Callable[[str, Page], bool],
        lookup: Callable[[str], Awaitable[Sequence[str]]] = resolve,
    ) -> None:
        self._targets = targets
        self._asking = asking
        self._take = take
        self._lookup = lookup
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}

    @property
    def pods(self) -> frozenset[tuple[str, int]]:
        """Addresses that are being read."""
        return frozenset(self._tasks)

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(LOOKUP_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> None:
        wanted: set[tuple[str, int]] = set()
        for host, port in self._targets:
            wanted |= {(address, port) for address in await self._lookup(host)}
        for gone in [each for each in self._tasks if each not in wanted]:
            self._tasks.pop(gone).cancel()
        for each in sorted(wanted - set(self._tasks))[: max(0, _MOST_PODS - len(self._tasks))]:
            reader = PodReader(*each, self._asking, partial(self._take, f"{each[0]}:{each[1]}"))
            self._tasks[each] = asyncio.get_running_loop().create_task(reader.run())
