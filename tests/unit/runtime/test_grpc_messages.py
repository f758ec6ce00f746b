"""The parts of gRPC that are pure: messages against protobuf itself, header blocks, statuses, frames."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import hpack
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serinus_runtime import bfloat16
from serinus_runtime.about import About, Rule
from serinus_runtime.datatypes import NUMPY
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.grpc import frames, status
from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import GrpcCodec
from serinus_runtime.grpc.connection import Connection
from serinus_runtime.grpc.frames import ConnectionFaultError
from serinus_runtime.grpc.heads import Head, Heads
from serinus_runtime.grpc.inference import trailing
from serinus_runtime.grpc.port import Limits, Method, Port, literal
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.grpc.wireformat import split, top_fields, varint
from serinus_runtime.oip import InferCodec, InferRequest
from serinus_runtime.problems import InvalidRequestError

_REQUEST = message_class("inference.ModelInferRequest")
_RESPONSE = message_class("inference.ModelInferResponse")
_TYPES = list(NUMPY)
_SIGNATURE = Signature(
    tuple(TensorSpec(f"in_{name}", name, (-1, 2)) for name in _TYPES),
    tuple(TensorSpec(f"out_{name}", name, (-1, 2)) for name in _TYPES),
    batched=True,
)
_FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def _codec(signature: Signature = _SIGNATURE, about: About | None = None) -> GrpcCodec:
    about = about or About()
    return GrpcCodec("m", "1", InferCodec("m", "1", signature, about), signature, about)


def _values(rows: int) -> st.SearchStrategy[dict[str, Any]]:
    texts = st.lists(st.text(max_size=5), min_size=2 * rows, max_size=2 * rows)
    made = {
        name: arrays.arrays(NUMPY[name], (rows, 2)) if name != "BYTES" else texts.map(
            lambda found: np.array(found, dtype=object).reshape(-1, 2)
        )
        for name in _TYPES
    }  # fmt: skip
    made["BF16"] = arrays.arrays(np.uint16, (rows, 2)).map(bfloat16.widened)
    return st.fixed_dictionaries(made)


def _raw(name: str, array: Any) -> bytes:
    if name == "BF16":
        return bytes(bfloat16.to_raw(array))
    if array.dtype.kind != "O":
        return bytes(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in array.ravel())


def _same(got: Any, want: Any) -> bool:
    return got.dtype == want.dtype and np.array_equal(got, want, equal_nan=got.dtype.kind == "f")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3).flatmap(_values), st.booleans(), st.text(max_size=4))
def test_what_protobuf_writes_is_read_and_what_is_written_it_reads(
    values: dict[str, Any], raw: bool, request_id: str
) -> None:
    codec = _codec()
    rows = len(values["BOOL"])
    message = _REQUEST(model_name="m", id=request_id)
    for name, array in values.items():
        tensor = message.inputs.add(name=f"in_{name}", datatype=name, shape=[rows, 2])
        if raw:
            message.raw_input_contents.append(_raw(name, array))
        elif name in _FIELDS:
            given_values = array.ravel().tolist()
            if name == "BYTES":
                given_values = [text.encode() for text in given_values]
            getattr(tensor.contents, _FIELDS[name]).extend(given_values)
    if not raw:
        with pytest.raises(InvalidRequestError, match=r"contents have no place for (FP|BF)16"):
            codec.read(message.SerializeToString(), {})
        return
    for _ in range(2):  # The second time, the head is known.
        request = codec.read(message.SerializeToString(), {})
        assert request.id == (request_id or None)
        assert request.rows == rows
        assert all(_same(request.inputs[f"in_{name}"], array) for name, array in values.items())
    body, _, _ = codec.reply(request, [values[name] for name in _TYPES])
    answer = _RESPONSE.FromString(body)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", request_id)
    assert [output.datatype for output in answer.outputs] == _TYPES
    assert all(list(output.shape) == [rows, 2] for output in answer.outputs)
    assert list(answer.raw_output_contents) == [_raw(name, values[name]) for name in _TYPES]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3).flatmap(_values))
def test_typed_contents_are_answered_with_typed_contents(values: dict[str, Any]) -> None:
    types = [name for name in _TYPES if name in _FIELDS]
    signature = Signature(
        tuple(TensorSpec(name, name, (-1, 2)) for name in types),
        tuple(TensorSpec(name, name, (-1, 2)) for name in types),
        batched=True,
    )
    codec, rows = _codec(signature), len(values["BOOL"])
    message = _REQUEST(model_name="m")
    for name in types:
        tensor = message.inputs.add(name=name, datatype=name, shape=[rows, 2])
        found = values[name].ravel().tolist()
        getattr(tensor.contents, _FIELDS[name]).extend([v.encode() for v in found] if name == "BYTES" else found)
    request = codec.read(message.SerializeToString(), {})
    assert all(_same(request.inputs[name], values[name]) for name in types)
    answer = _RESPONSE.FromString(codec.reply(request, [values[name] for name in types])[0])
    assert not answer.raw_output_contents
    for output, name in zip(answer.outputs, types, strict=True):
        got = list(getattr(output.contents, _FIELDS[name]))
        want = values[name].ravel().tolist()
        if name == "BYTES":
            want = [text.encode() for text in want]
        np.testing.assert_array_equal(got, want)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_read_as_protobuf_reads_it_or_refused(data: st.DataObject) -> None:
    """The short cut and the official runtime agree on bytes that are nearly, or not at all, a request."""
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),), batched=True)
    codec = _codec(signature)
    message = _REQUEST(model_name="m", id="7")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(bytes(8))
    body = bytearray(message.SerializeToString())
    codec.read(bytes(body), {})
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))

    def outcome(read: Any) -> object:
        try:
            found: InferRequest = read(bytes(body))
        except InvalidRequestError as error:
            return str(error)
        return found.id, found.rows, found.outputs, {name: _raw("", array) for name, array in found.inputs.items()}

    assert outcome(lambda told: codec.read(told, {})) == outcome(codec.decode)


@given(st.binary(max_size=200))
def test_a_message_that_is_split_says_the_same(body: bytes) -> None:
    parts = split(body)
    if parts is None:
        return
    head, request_id, raw = parts
    try:
        whole = _REQUEST.FromString(body)
    except DecodeError:
        with pytest.raises(DecodeError):
            _REQUEST.FromString(head)
        return
    again = _REQUEST.FromString(head)
    assert (request_id or "") == whole.id
    again.id = whole.id
    again.raw_input_contents.extend(map(bytes, raw))
    assert again == whole


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_are_written_as_protobuf_writes_them(number: int) -> None:
    message = message_class("inference.StatisticDuration")(count=number)
    assert message.SerializeToString() == (b"\x08" + varint(number) if number else b"")


def test_fields_are_counted_up_to_a_limit() -> None:
    message = _REQUEST(model_name="m", raw_input_contents=[b""] * 10)
    assert top_fields(message.SerializeToString(), 100) == 11
    assert top_fields(b"\x3a\x00" * 100, 10) == 11
    assert top_fields(b"\x3a\xff\xff\xff\xff\xff", 10) <= 11


def test_outputs_that_rules_add_are_answered_too() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("p", "FP32", (-1, 1)),), batched=True)
    codec = _codec(signature, About(rule=Rule("p", None, (("block", 0.8),), "allow")))
    message = _REQUEST(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[2, 1]).contents.fp32_contents.extend([1, 2])
    message.outputs.add(name="decision")
    request = codec.read(message.SerializeToString(), {})
    assert request.outputs == ("p",)
    answer = _RESPONSE.FromString(codec.reply(request, [np.array([[0.9], [0.1]], np.float32)])[0])
    assert list(answer.outputs[0].contents.bytes_contents) == [b"block", b"allow"]


# Header blocks.

_PSEUDO = [(":method", "POST"), (":scheme", "http"), (":path", "/s/M")]


@given(st.lists(st.lists(st.sampled_from([("a", "1"), ("b", "2"), ("x-id", "3"), ("x-id", "4")]), max_size=4)))
def test_blocks_that_are_remembered_mean_what_they_meant(requests: list[list[tuple[str, str]]]) -> None:
    encoder, plain, heads = hpack.Encoder(), hpack.Decoder(), Heads(1 << 16, 100)
    for fields in requests:
        block = encoder.encode([*_PSEUDO, *fields])
        wanted: dict[bytes, bytes] = {}
        for name, value in list(plain.decode(block, raw=True))[3:]:
            wanted[name] = wanted[name] + b"," + value if name in wanted else value
        head = heads.read(block)
        assert (head.fields, head.path, head.fault) == (wanted, b"/s/M", "")


def test_only_blocks_that_leave_the_table_alone_are_remembered() -> None:
    encoder, heads = hpack.Encoder(), Heads(1 << 16, 100)
    first = encoder.encode([*_PSEUDO, ("a", "1")])
    heads.read(first)
    again = encoder.encode([*_PSEUDO, ("a", "1")])
    known = heads.read(again)
    assert heads.read(again) is known
    heads.read(encoder.encode([*_PSEUDO, ("a", "2")]))
    other = heads.read(again)
    assert other is not known
    assert other.fields == {b"a": b"1,2"}, "the same bytes mean other entries now"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("40m", 0.04), ("500u", 0.0005), ("99999999n", 0.099999999)],
)
def test_timeouts_have_units(timeout: str, seconds: float) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in [*_PSEUDO, ("grpc-timeout", timeout)]]
    assert Head(pairs).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", ["", "5", "S", "123456789S", "-1S", "1 S", "1.5S", "1h"])
def test_a_timeout_that_is_none_is_a_fault(timeout: str) -> None:
    assert Head(
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b"grpc-timeout", timeout.encode())]
    ).fault


@pytest.mark.parametrize(
    ("length", "said"), [(1, b"\x01"), (126, b"\x7e"), (127, b"\x7f\x00"), (255, b"\x7f\x80\x01"), (20_000, None)]
)
def test_written_headers_are_read_by_hpack(length: int, said: bytes | None) -> None:
    block = literal(b"name", b"v" * length)
    assert [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)] == [(b"name", b"v" * length)]
    if said is not None:
        assert said in block


def test_header_lines_become_trailers() -> None:
    block = trailing(b"ratelimit-limit: 5\r\nRetry-After: 2\r\n")
    assert [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)] == [
        (b"ratelimit-limit", b"5"),
        (b"retry-after", b"2"),
        (b"grpc-retry-pushback-ms", b"2000"),
    ]
    assert trailing(b"") == b""


@given(st.text(max_size=50))
def test_messages_of_errors_survive_the_wire(text: str) -> None:
    from urllib.parse import unquote

    encoded = status.percent_encoded(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode()) == text.encode("utf-8", "replace").decode()


# The frame parser, with bytes that no client would send.


class _Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = pause_reading = resume_reading = close

    def can_write_eof(self) -> bool:
        return False


class _Echo:
    """Every method answers what it is asked."""

    def find(self, path: bytes) -> Method:
        return Method(stream=_EchoStream) if path == b"/s/S" else Method(unary=lambda call, body: call.reply([body]))

    def refused(self, path: bytes, code: int) -> None:
        """Nobody counts."""


class _EchoStream:
    def __init__(self, call: Call) -> None:
        self._call = call

    def wants(self) -> bool:
        return True

    def message(self, payload: bytes) -> None:
        self._call.send([payload])

    def end(self) -> None:
        self._call.finish()


_BLOCKS = [hpack.Encoder().encode([*_PSEUDO[:2], (":path", path), ("content-type", "application/grpc")])
           for path in ("/s/M", "/s/S")]  # fmt: skip
_PAYLOADS = st.one_of(
    st.binary(max_size=20), st.sampled_from([*_BLOCKS, b"\0\0\0\0\2ab", b"\0\0\0\0\2ab" * 2, b"\0\0\0\0", bytes(8)])
)
_FRAME = st.builds(
    lambda kind, flags, stream, payload: frames.head(len(payload), kind, flags, stream) + payload,
    st.integers(0, 10), st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x25, 0xFF]), st.integers(0, 7), _PAYLOADS,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_FRAME, max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.booleans())
def test_no_frames_break_the_connection_or_leave_anything_behind(
    sent: list[bytes], cuts: list[int], greeted: bool
) -> None:
    async def talk() -> None:
        port = Port(_Echo(), Limits(message_bytes=1000, streams=3))
        transport, connection = _Transport(), Connection(port)
        connection.connection_made(cast(asyncio.Transport, transport))
        data = (frames.PREFACE + frames.settings({}) if greeted else b"") + b"".join(sent)
        step = 0
        while data:
            size = cuts[step % len(cuts)]
            connection.data_received(data[:size])
            data = data[size:]
            step += 1
        connection.on_sweep(1e9)
        connection.connection_lost(None)
        assert (port.received_bytes, port.held_bytes, len(port.connections)) == (0, 0, 0)
        _well_formed(bytes(transport.written))

    asyncio.run(talk())


def _well_formed(written: bytes) -> None:
    """What the server wrote is frames, and no stream goes on behind its end."""
    if written[-80:].find(b"HTTP/1.1") >= 0:
        return
    at, ended = 0, set()
    while at < len(written):
        length, kind, flags = int.from_bytes(written[at : at + 3], "big"), written[at + 3], written[at + 4]
        stream = int.from_bytes(written[at + 5 : at + 9], "big")
        at += 9 + length
        assert at <= len(written)
        if kind in (frames.DATA, frames.HEADERS):
            assert stream not in ended
            if flags & frames.END_STREAM:
                ended.add(stream)


def test_a_block_that_is_no_hpack_ends_the_connection() -> None:
    with pytest.raises(ConnectionFaultError, match="not HPACK"):
        Heads(1000, 10).read(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(ConnectionFaultError, match="too many headers"):
        Heads(10_000, 10).read(hpack.Encoder().encode([(f"x{n}", "") for n in range(11)]))
