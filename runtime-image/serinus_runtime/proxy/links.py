"""The HTTP/2 connections to the engine's gRPC port: one, and more where it takes only so many streams on each."""

from __future__ import annotations

import asyncio

from serinus_runtime.proxy.h2link import Link
from serinus_runtime.proxy.problems import connect


class Links:
    """To one address. `connect_seconds`: for a connection to be made."""

    def __init__(self, host: str, port: int, connect_seconds: float = 2.0) -> None:
        self._host = host
        self._port = port
        self._seconds = connect_seconds
        self._links: list[Link] = []
        self._making = asyncio.Lock()
        self.connected = 0
        """Connections that were made since the start."""

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._links)

    def ready(self) -> Link | None:
        """One that takes a stream now, if there is one."""
        return next((link for link in self._links if link.usable), None)

    async def get(self) -> Link:
        """One that takes a stream. Raises Problem."""
        async with self._making:
            if (link := self.ready()) is not None:
                return link
            made = Link(self._lost)
            await connect(made, self._host, self._port, self._seconds)
            self._links.append(made)
            self.connected += 1
            return made

    def close(self) -> None:
        """Drops everything."""
        for link in list(self._links):
            link.close()

    def _lost(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
