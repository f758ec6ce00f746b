"""An engine that speaks gRPC: grpcio's own server, with methods of every kind and bytes as messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

SERVICE = "/test.Engine/"


class GrpcEngine:
    """Serves on a port of its own; use as a context."""

    def __init__(self, port: int = 0, threads: int = 32) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Method and metadata of every call."""
        self.cancelled = 0
        self.produced = 0
        """Bytes that `Pour` has given out."""
        self.remaining: list[float | None] = []
        """What was left of the deadline when a call began."""
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)
        """Released by every call of `Wait` that has begun."""
        self._server = grpc.server(ThreadPoolExecutor(threads), options=[("grpc.max_receive_message_length", -1),
                                                                         ("grpc.max_send_message_length", -1),
                                                                         ("grpc.so_reuseport", 0)])  # fmt: skip
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._noting(self._echo)),
            "Fail": grpc.unary_unary_rpc_method_handler(self._noting(self._fail)),
            "Break": grpc.unary_unary_rpc_method_handler(self._noting(self._break)),
            "Wait": grpc.unary_unary_rpc_method_handler(self._noting(self._wait)),
            "Count": grpc.unary_stream_rpc_method_handler(self._noting(self._count)),
            "Pour": grpc.unary_stream_rpc_method_handler(self._noting(self._pour)),
            "Sum": grpc.stream_unary_rpc_method_handler(self._noting(self._sum)),
            "Chat": grpc.stream_stream_rpc_method_handler(self._noting(self._chat)),
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Engine", handlers)])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def __enter__(self) -> GrpcEngine:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        stopping = self._server.stop(None)
        self.gate.set()
        stopping.wait()

    def _noting(self, behaviour: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            self.seen.append((behaviour.__name__.strip("_"), dict(context.invocation_metadata())))
            self.remaining.append(context.time_remaining())
            return behaviour(request, context)

        return call

    def _echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata(
            (("x-engine", "one"), ("x-engine-bin", b"\x00\xff"), ("x-model-digest", "its own"))
        )
        context.set_trailing_metadata((("x-trailer", "t"),))
        return request[:4] * (len(request) // 4) if len(request) > 100 else b"got " + request

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-why-bin", b"\x01"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "größe 100% missing")
        return b""

    def _break(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise RuntimeError("broken")

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        self.waiting.release()
        while not self.gate.wait(0.005):
            if over.is_set():
                self.cancelled += 1
                return b""
        return b"waited"

    def _count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def _pour(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(int(request)):
            self.produced += 1 << 20
            yield bytes(1 << 20)

    def _sum(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(int(request) for request in requests)

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield b"you said " + request
