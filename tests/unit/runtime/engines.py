"""Engines to stand beside the front: FastAPI on uvicorn, aiohttp, one that speaks raw bytes; and the front itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import uvicorn
from aiohttp import web
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse

from serinus_runtime.config import Config
from serinus_runtime.server import Server
from unit.runtime.ports import Loop, until
from unit.runtime.support import parse_metrics, request


def listener(port: int = 0) -> socket.socket:
    """A listening socket on the loopback."""
    return socket.create_server(("127.0.0.1", port))


class Seen:
    """What an engine saw, and what the test lets it do."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cancelled = 0
        self.finished = 0
        self.sent = 0
        self.ready = True
        self.gate = asyncio.Event()


def fast_app(seen: Seen) -> FastAPI:
    """JSON, events, large answers, failures, a WebSocket."""
    app = FastAPI(docs_url=None)

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({}, 200 if seen.ready else 503)

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        body = await request.body()
        answer = JSONResponse({"got": json.loads(body), "query": str(request.url.query)}, headers={"x-engine": "fast"})
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        return answer

    @app.get("/plain")
    @app.head("/plain")
    async def plain() -> Response:
        return Response(b"plain text", media_type="text/plain")

    @app.get("/none")
    async def none() -> Response:
        return Response(status_code=204)

    @app.post("/fail")
    async def fail() -> Response:
        return JSONResponse({"detail": "no"}, 500)

    @app.get("/sse")
    @app.post("/sse")
    async def sse(count: int = 3, gated: bool = False) -> Response:
        async def events() -> AsyncIterator[bytes]:
            try:
                for number in range(count):
                    if gated and number:
                        await seen.gate.wait()
                        seen.gate.clear()
                    yield b"data: %d\n\n" % number
                    seen.sent += 1
                seen.finished += 1
            except BaseException:
                seen.cancelled += 1
                raise

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/flood")
    async def flood(megabytes: int) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            piece = b"x" * (1 << 20)
            try:
                for _ in range(megabytes):
                    yield piece
                    seen.sent += 1
            except BaseException:
                seen.cancelled += 1
                raise

        return StreamingResponse(pieces(), media_type="application/octet-stream")

    @app.post("/slow")
    async def slow(request: Request) -> Response:
        while not seen.gate.is_set():
            if await request.is_disconnected():
                seen.cancelled += 1
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.gate.wait(), 0.01)
        return JSONResponse({"done": True})

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if message.get("text") is not None:
                    await socket.send_text("echo " + message["text"])
                else:
                    await socket.send_bytes(message["bytes"])
        seen.finished += 1

    @app.websocket("/refused")
    async def refused(socket: WebSocket) -> None:
        await socket.close()

    return app


class _Noting:
    """Notes every request before the application sees it."""

    def __init__(self, app: Any, seen: Seen) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self._seen.requests.append((scope.get("method", "WS"), scope["path"], headers))
        await self._app(scope, receive, send)


class FastEngine(Loop):
    """FastAPI on uvicorn in a thread."""

    def __init__(self, port: int = 0, app: Callable[[Seen], FastAPI] = fast_app) -> None:
        super().__init__()
        self._wanted = port
        self._app = app
        self.seen: Seen
        self.port = 0

    def __enter__(self) -> FastEngine:
        super().__enter__()
        self._socket = listener(self._wanted)
        self.port = self._socket.getsockname()[1]
        self.call(self._open())
        until(lambda: self._server.started)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.should_exit = self._server.force_exit = True
        until(self._task.done)
        self._socket.close()
        super().__exit__(kind, error, at)

    async def _open(self) -> None:
        self.seen = Seen()
        config = uvicorn.Config(
            _Noting(self._app(self.seen), self.seen), log_level="error", ws="websockets-sansio", lifespan="off",
            timeout_keep_alive=60,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._task = self.loop.create_task(self._server.serve([self._socket]))

    def drop(self) -> None:
        """Drops every connection."""
        self.do(lambda: [each.transport.abort() for each in self._server.server_state.connections])

    def let_go(self) -> None:
        """Opens the gate."""
        self.do(self.seen.gate.set)


class AioEngine(Loop):
    """aiohttp: chunked answers, and one whose length is known."""

    port = 0

    def __enter__(self) -> AioEngine:
        super().__enter__()
        self.call(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self._runner.cleanup())
        super().__exit__(kind, error, at)

    async def _open(self) -> None:
        async def echo(request: web.Request) -> web.StreamResponse:
            return web.json_response({"got": await request.json()})

        async def chunked(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            answer.enable_chunked_encoding()
            await answer.prepare(request)
            for number in range(100):
                await answer.write(b"%03d" % number * 100)
            await answer.write_eof()
            return answer

        app = web.Application()
        app.add_routes([web.post("/echo", echo), web.get("/chunked", chunked)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[bool]]


class RawEngine(Loop):
    """Answers /health by itself, and everything else as `talk` says: with the head of the request; false ends it."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self._talk = talk
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    def __enter__(self) -> RawEngine:
        super().__enter__()
        self.call(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self._close())
        super().__exit__(kind, error, at)

    async def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if (task := asyncio.current_task()) is not None:
            self._tasks.append(task)
        counted = False
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /health "):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                if head.startswith(b"GET /v2/health/ready "):
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                if not counted:
                    counted = True
                    self.connections += 1
                self.heads.append(head)
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                if not await self._talk(reader, writer, head):
                    break
        writer.close()


class Front(Loop):
    """Our server with SERINUS_ENGINE=proxy in front of `port`."""

    def __init__(self, port: int, **settings: Any) -> None:
        super().__init__()
        base = {"host": "127.0.0.1", "http_port": 0, "metrics_port": 0, "engine": "proxy", "model_version": "v3"}
        url = f"http://127.0.0.1:{port}"
        self._config = Config(**{**base, "proxy_url": url, "queue_timeout": 30.0, "revision": "r3", **settings})
        self.server: Server
        self.port = 0

    def __enter__(self) -> Front:
        super().__enter__()
        try:
            self.call(self._open())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self.server.stop())
        super().__exit__(kind, error, at)

    async def _open(self) -> None:
        await self.listen()
        await self.server.load()

    async def listen(self) -> None:
        """Opens the ports; the engine may be absent."""
        self.server = Server(self._config)
        await self.server.start()
        self.port = self.server.http_port

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; `body` as JSON."""
        data = None if body is None else json.dumps(body).encode()
        return request(self.port, method, path, data, headers)

    def metrics(self) -> dict[str, float]:
        """As `support.Live` gives them."""
        return parse_metrics(request(self.server.metrics_port, "GET", "/metrics")[2].decode())
