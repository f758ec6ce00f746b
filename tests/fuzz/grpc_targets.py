"""What is fuzzed of the gRPC port: its messages, and its connections."""

from __future__ import annotations

import asyncio
from typing import cast

import numpy as np

from serinus_runtime.about import About
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.grpc import frames
from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import GrpcCodec
from serinus_runtime.grpc.connection import Connection
from serinus_runtime.grpc.port import Limits, Method, Port, literal
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.oip import InferCodec, InferRequest
from serinus_runtime.problems import InvalidRequestError

_PLAIN = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
_REQUEST = message_class("inference.ModelInferRequest")


def _request(*, raw: bool) -> bytes:
    made = _REQUEST(model_name="m", id="7")
    tensor = made.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    if raw:
        made.raw_input_contents.append(bytes(12))
    else:
        tensor.contents.fp32_contents.extend([1, 2, 3])
    body: bytes = made.SerializeToString()
    return body


def _codec() -> GrpcCodec:
    return GrpcCodec("m", "1", InferCodec("m", "1", _PLAIN), _PLAIN, About())


def message(data: bytes) -> None:
    """A message is read, by the short cut and by protobuf alike, or refused with a text that helps."""
    codec = _codec()
    codec.read(_request(raw=True), {})
    found: list[InferRequest | str] = []
    for read in (codec.decode, lambda body: codec.read(body, {})):
        try:
            found.append(read(data))
        except InvalidRequestError as error:
            found.append(str(error))
    full, short = found
    if isinstance(full, str) or isinstance(short, str):
        assert full == short
        assert len(str(full)) < 2000, "an error as long as the request helps nobody"
        return
    assert (full.id, full.rows, full.outputs, full.form) == (short.id, short.rows, short.outputs, short.form)
    np.testing.assert_array_equal(full.inputs["x"], short.inputs["x"])


class _Sink:
    """A transport that nobody reads."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def close(self) -> None:
        pass

    abort = write_eof = pause_reading = resume_reading = close

    def can_write_eof(self) -> bool:
        return True


class _Echo:
    """Answers every call with what it was sent."""

    def find(self, path: bytes) -> Method:
        return Method(stream=_EchoStream) if path == b"/s" else Method(unary=lambda call, body: call.reply([body]))

    def refused(self, path: bytes, code: int) -> None:
        pass


class _EchoStream:
    def __init__(self, call: Call) -> None:
        self._call = call

    def wants(self) -> bool:
        return True

    def message(self, payload: bytes) -> None:
        self._call.send([payload])

    def end(self) -> None:
        self._call.finish()


def connection(data: bytes) -> None:
    """Whatever comes behind the preface leaves nothing behind, and makes no answer that is out of proportion."""

    async def talk() -> None:
        port = Port(_Echo(), Limits(message_bytes=10_000, streams=4))
        sink, made = _Sink(), Connection(port)
        made.connection_made(cast(asyncio.Transport, sink))
        made.data_received(frames.PREFACE + frames.settings({}))
        cut = 1 + data[0] if data else 1
        for at in range(1, len(data), cut):
            made.data_received(data[at : at + cut])
        made.on_sweep(1e9)
        made.connection_lost(None)
        assert (port.received_bytes, port.held_bytes, port.calls, len(port.connections)) == (0, 0, 0, 0)
        assert sink.written < 1000 + 100 * len(data)

    asyncio.run(talk())


def _call(stream: int, path: bytes, body: bytes) -> bytes:
    pairs = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b"content-type", b"application/grpc"))
    block = b"".join(literal(name, value) for name, value in pairs)
    prefixed = b"\0" + len(body).to_bytes(4, "big") + body
    data = frames.head(len(prefixed), frames.DATA, frames.END_STREAM, stream) + prefixed
    return frames.headers(stream, block, 0) + data


MESSAGES = (_request(raw=True), _request(raw=False))
CONNECTIONS = (
    b"\xff" + _call(1, b"/u", b"abc") + _call(3, b"/s", b"abc"),
    b"\x07" + _call(1, b"/s", b"abc") + frames.rst_stream(1, 8) + frames.window_update(0, 5),
    b"\x30" + frames.settings({4: 0}) + _call(1, b"/u", b"abc") + frames.settings({4: 7}) + frames.ping_ack(bytes(8)),
)
