"""Servers for the proxy's measurement: an engine that answers at once, and a front made with aiohttp's client."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

ANSWER = b'{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[0.5]}]}'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Engine(asyncio.Protocol):
    """Answers every request with the same JSON."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._whole = _HEAD % len(ANSWER) + ANSWER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parses it."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A whole request."""
        self._transport.write(self._whole)


async def _engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


async def _aiohttp(port: int, upstream: int) -> None:
    from aiohttp import ClientSession, TCPConnector, web

    session = ClientSession(connector=TCPConnector(limit=128), auto_decompress=False)
    url = f"http://127.0.0.1:{upstream}"

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        async with session.request(request.method, url + request.path_qs, data=body, headers=request.headers) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        uvloop.run(_engine(int(sys.argv[2])))
    else:
        uvloop.run(_aiohttp(int(sys.argv[2]), int(sys.argv[3])))
