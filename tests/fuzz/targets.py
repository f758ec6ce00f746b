"""What is fuzzed, and what must hold. A target takes bytes; whatever it raises is a finding."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from fuzz import grpc_targets
from serinus_runtime import archives
from serinus_runtime.about import About
from serinus_runtime.datatypes import NUMPY
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.friendly import Predict, PredictV1
from serinus_runtime.http import Exchange, HttpProtocol, Limits, Site
from serinus_runtime.oip import Front, InferCodec, InferRequest, InvalidRequestError

Target = Callable[[bytes], None]

_ALL_TYPES = Signature(
    tuple(TensorSpec(datatype.lower(), datatype, (-1, 2)) for datatype in NUMPY),
    (TensorSpec("y", "FP32", (-1, 1)),),
    batched=True,
)
_PLAIN = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
_TEXT = Signature((TensorSpec("x", "BYTES", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
_FIXED = Signature((TensorSpec("x", "INT64", (2, 2)),), (TensorSpec("y", "FP32", (2,)),), batched=False)
_SIGNATURES = (_PLAIN, _TEXT, _FIXED, _ALL_TYPES)
_LARGEST = 64 << 20


def _checked(signature: Signature, request: InferRequest) -> None:
    """What a front lets through is what the engine was promised."""
    assert list(request.inputs) == [spec.name for spec in signature.inputs]
    held = 0
    for spec in signature.inputs:
        array = request.inputs[spec.name]
        assert array.dtype == NUMPY[spec.datatype], (spec, array.dtype)
        assert array.ndim == len(spec.shape)
        assert all(want in (-1, got) for got, want in zip(array.shape, spec.shape, strict=True))
        if signature.batched:
            assert array.shape[0] == request.rows > 0
        held += array.nbytes
    assert held < _LARGEST, "a small request became a large one"


def _reading(make: Callable[[Signature], Front], signatures: tuple[Signature, ...]) -> Target:
    fronts = [(signature, make(signature)) for signature in signatures]

    def target(data: bytes) -> None:
        if not data:
            return
        signature, front = fronts[data[0] % len(fronts)]
        headers: dict[bytes, bytes] = {}
        body = data[1:]
        if data[0] & 0x80 and len(body) > 2:
            headers[b"inference-header-content-length"] = b"%d" % int.from_bytes(body[:2], "little")
            body = body[2:]
        try:
            request = front.read(body, headers)
        except InvalidRequestError as error:
            told = str(error)
        else:
            told = ""
            _checked(signature, request)
        assert len(told) < 2000, "an error as long as the request helps nobody"

    return target


def _fast_path(data: bytes) -> None:
    """What the short cut reads, the full codec reads alike."""
    codec = InferCodec("m", "1", _PLAIN)
    try:
        full: InferRequest | None = codec.decode(data)
    except InvalidRequestError:
        full = None
    try:
        short: InferRequest | None = codec.read(data, {})
    except InvalidRequestError:
        short = None
    assert (full is None) == (short is None)
    if full is not None and short is not None:
        assert (full.id, full.rows, full.outputs) == (short.id, short.rows, short.outputs)
        for name, array in full.inputs.items():
            np.testing.assert_array_equal(array, short.inputs[name])


class _Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed, "an answer behind the end"
        self.written.append(bytes(data))

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    abort = close

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Echo:
    """Answers with what it was asked, so that two ways of reading can be compared."""

    def handle(self, exchange: Exchange) -> None:
        told = (exchange.method, exchange.target, sorted(exchange.headers.items()), bytes(exchange.body))
        exchange.respond(200, repr(told).encode())

    def refused(self, target: bytes, status: int) -> None:
        pass


_LIMITS = Limits(body_bytes=4096, head_bytes=2048, headers=20, receive_bytes=16384)


def _talk(parts: list[bytes], site: Site) -> bytes:
    wire = _Wire()
    protocol = HttpProtocol(site)
    protocol.connection_made(cast(asyncio.Transport, wire))
    for part in parts:
        protocol.data_received(part)
    protocol.eof_received()
    protocol.connection_lost(None)
    assert site.received_bytes == 0, "bytes of a connection that has gone are still counted"
    text = b"".join(wire.written)
    # Ids differ from request to request, and what follows a refusal depends on where the reading stopped.
    return b"\r\n".join(line for line in text.split(b"\r\n") if not line.startswith((b"x-request-id", b"date")))


def _http(data: bytes) -> None:
    """However the bytes are cut, and whether or not the head was seen before, the same is understood."""
    if len(data) < 3:
        return
    cut, data = 1 + data[0], data[1:]
    site = Site(_Echo(), _LIMITS)
    whole = _talk([data], site)
    again = _talk([data], site)
    assert whole == again, "a head that is known is read otherwise"
    pieces = _talk([data[at : at + cut] for at in range(0, len(data), cut)], Site(_Echo(), _LIMITS))
    if b"HTTP/1.1 4" not in whole and b"HTTP/1.1 5" not in whole:
        assert whole == pieces, "how the bytes are cut changes what is understood"


def _archive(data: bytes) -> None:
    """Nothing is written outside, and not more than allowed."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        into = root / "inside" / "model"
        into.parent.mkdir()
        archive = root / "a.bin"
        archive.write_bytes(data)
        with contextlib.suppress(archives.ArchiveError, OSError):
            archives.unpack(archive, into, 1 << 20)
        found = [path for path in root.rglob("*") if path != archive]
        assert all(path == into.parent or path == into or into in path.parents for path in found), found
        assert not any(path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found if path.is_file()) <= 1 << 20


def _seed_archive() -> bytes:
    import tarfile

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("../up")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return made.getvalue()


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


_INFER = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, -3e5]}], "id": "a"}


def _infer(datatype: str, shape: list[int], data: object) -> dict[str, object]:
    tensor: dict[str, object] = {"name": "x", "shape": shape, "datatype": datatype}
    return {"inputs": [tensor if data is None else {**tensor, "data": data}]}


def _binary(request: dict[str, object], raw: bytes, signature: int) -> bytes:
    (tensor,) = cast(list[dict[str, object]], request["inputs"])
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = _json(request)
    return bytes([0x80 | signature]) + len(head).to_bytes(2, "little") + head + raw


WORDS = (
    *(f'"{word}"' for word in (
        "inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id", "instances", "binary_data",
        "binary_data_size", "binary_data_output", "x", "y", "b64", "priority", "timeout",
    )), *(f'"{datatype}"' for datatype in NUMPY), "[", "]", "{", "}", ",", ":", "null", "true", "1e400", "-0.0", "NaN",
    "\\\\ud800", "Content-Length: ", "Transfer-Encoding: chunked", "Connection: close", "Expect: 100-continue",
    "Upgrade: websocket", "HTTP/1.1", "HTTP/1.0", "POST ", "GET ", "\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "0\\x0d\\x0a",
)  # fmt: skip
"""What the mutations are made of: what reads JSON is compiled, and tells the fuzzer nothing about its branches."""
_NAMED = Signature(
    (TensorSpec("amount", "FP32", (-1, 1)), TensorSpec("kind", "BYTES", (-1, 1))),
    (TensorSpec("y", "FP32", (-1, 1)),),
    batched=True,
)
TARGETS: Mapping[str, tuple[Target, tuple[bytes, ...]]] = {
    "infer": (
        _reading(lambda signature: InferCodec("m", "1", signature), _SIGNATURES),
        (
            b"\x00" + _json(_INFER),
            b"\x80\x00\x00" + bytes(12),
            b"\x01" + _json(_infer("BYTES", [1, 2], ["a", "\u00e9"])),
            b"\x02" + _json(_infer("INT64", [2, 2], [[1, 2], [3, 4]])),
            b"\x00" + _json(_infer("FP32", [2, 3], [[1, 2, 3], [4, 5, None]])),
            b"\x00" + _json({**_INFER, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}),
            _binary(_infer("FP32", [1, 3], None), bytes(12), 0),
            _binary(_infer("BYTES", [1, 2], None), b"\x01\x00\x00\x00a\x02\x00\x00\x00bc", 1),
        ),
    ),
    "fast": (_fast_path, (_json(_INFER), _json({**_INFER, "outputs": [{"name": "y"}]}))),
    "v1": (
        _reading(lambda signature: PredictV1(signature, About()), _SIGNATURES),
        (b"\x00" + _json({"instances": [[1, 2, 3]]}), b"\x01" + _json({"inputs": {"x": [["a", "b"]]}})),
    ),
    "predict": (
        _reading(lambda signature: Predict(signature, About()), (_NAMED, _PLAIN)),
        (b"\x00" + _json({"amount": 1.5, "kind": "travel"}), b"\x00" + _json([{"amount": 1, "kind": {"b64": "YQ=="}}])),
    ),
    "http": (
        _http,
        (
            b"\x40POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            b"\x05POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        ),
    ),
    "archive": (_archive, (_seed_archive(),)),
    "grpc": (grpc_targets.message, grpc_targets.MESSAGES),
    "http2": (grpc_targets.connection, grpc_targets.CONNECTIONS),
}
"""By name: the target, and inputs to begin with."""
