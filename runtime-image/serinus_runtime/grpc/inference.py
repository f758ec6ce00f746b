"""ModelInfer and ModelStreamInfer: the way to the same `Inference` that HTTP requests take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import parsed
from serinus_runtime.grpc.port import literal
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.grpc.wireformat import field
from serinus_runtime.http import Exchange
from serinus_runtime.inference import Inference
from serinus_runtime.metrics import Metrics
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.state import State

FRONT = "grpc"
"""The name of the codec among a model's fronts."""
_REQUEST = message_class("inference.ModelInferRequest")
_STREAM_RESPONSE = message_class("inference.ModelStreamInferResponse")
_UNDER_WAY = 64
"""Messages of one stream that are worked on at once."""
_ERROR = msgspec.json.Decoder(dict[str, str])
_Answer = Callable[[Exchange, int, bytes, bytes, bytes], None]


class Asking:
    """What the two methods share."""

    def __init__(self, name: str, version: str, state: State, metrics: Metrics) -> None:
        self.name = name
        self.version = version
        self._state = state
        self._metrics = metrics
        named = field(b"\x0a", name.encode())
        self._usual = (named + field(b"\x12", version.encode()), named)

    def one(self, call: Call, body: bytes) -> None:
        """Answers a ModelInfer."""
        text = self.not_ours(body)
        if text:
            self.count_refusal(404)
            call.fail(404, text)
            return
        exchange = self.exchange(call, body, partial(_answer_one, call))
        exchange.received = call.received
        exchange.request_id = call.identify()
        inference = self.begin(exchange)
        if exchange.on_gone is not None:
            call.on_gone = exchange.on_gone
            if call.timer is not None:
                call.on_expired = inference.expire

    def stream(self, call: Call) -> Stream:
        """Begins a ModelStreamInfer."""
        return Stream(self, call)

    def exchange(self, call: Call, body: bytes, answer: _Answer) -> Exchange:
        """A request as `Inference` takes it."""
        exchange = Exchange(answer)
        exchange.method = b"POST"
        exchange.target = call.head.path
        exchange.headers = call.head.fields
        exchange.body = body
        exchange.peer = call.address
        return exchange

    def begin(self, exchange: Exchange) -> Inference:
        """Queues it."""
        model = self._state.model
        inference = Inference(exchange, self._state, self._metrics, model.fronts[FRONT] if model is not None else None)
        inference.begin()
        return inference

    def not_ours(self, body: bytes) -> str:
        """Why a request cannot be for this model; empty when it is, or when it cannot be read at all."""
        with_version, named = self._usual
        if body.startswith(with_version) or (body.startswith(named) and body[len(named) : len(named) + 1] != b"\x12"):
            return ""
        try:
            request = parsed(_REQUEST, body)
        except InvalidRequestError:
            return ""
        return not_served(self.name, self.version, request.model_name, request.model_version)

    def count_refusal(self, code: int) -> None:
        """A request that is not for this model. Over HTTP it has another path and is not counted; here it was read."""
        self._metrics.rejected["invalid"] += 1
        self._metrics.answered(code, 0.0)


def _answer_one(call: Call, exchange: Exchange, status: int, body: bytes, _type: bytes, headers: bytes) -> None:
    if status == 200:
        if headers:
            call.metadata = trailing(headers)
        call.reply([body])
    else:
        call.fail(status, error_text(body), trailing(headers))
    exchange.answer = b""
    exchange.on_gone = None


def error_text(body: bytes) -> str:
    """The text in the JSON that HTTP would answer."""
    return _ERROR.decode(body).get("error", "")


def trailing(headers: bytes) -> bytes:
    """HTTP header lines as fields of metadata, and `Retry-After` in gRPC's words as well."""
    block = b""
    for line in headers.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            name, value = name.strip().lower(), value.strip()
            block += literal(name, value)
            if name == b"retry-after" and value.isdigit():
                block += literal(b"grpc-retry-pushback-ms", value + b"000")
    return block


class Stream:
    """One ModelStreamInfer: answers come in the order of their requests; what fails is said in its answer."""

    def __init__(self, asking: Asking, call: Call) -> None:
        self._asking = asking
        self._call = call
        self._waiting: deque[_Turn] = deque()
        self._ended = False
        self._count = 0
        call.on_gone = self._gone
        call.on_expired = self._expired

    def wants(self) -> bool:
        """False while enough is under way."""
        return len(self._waiting) < _UNDER_WAY

    def message(self, payload: bytes) -> None:
        """The next request."""
        turn = _Turn(self)
        self._waiting.append(turn)
        self._count += 1
        text = self._asking.not_ours(payload)
        if text:
            self._asking.count_refusal(404)
            turn.answer = _STREAM_RESPONSE(error_message=text).SerializeToString()
            self._flush()
            return
        exchange = turn.exchange = self._asking.exchange(self._call, payload, turn.answered)
        exchange.received = time.monotonic()
        exchange.request_id = self._call.identify() + b"-%d" % self._count
        turn.inference = self._asking.begin(exchange)

    def end(self) -> None:
        """No more requests will come."""
        self._ended = True
        self._flush()

    def _flush(self) -> None:
        call, waiting = self._call, self._waiting
        full = len(waiting) >= _UNDER_WAY
        while waiting and (answer := waiting[0].answer) is not None:
            waiting.popleft()
            call.send([answer])
        if self._ended and not waiting:
            call.finish()
        elif full:
            call.more()

    def _gone(self) -> None:
        for turn in self._waiting:
            if turn.exchange is not None and turn.exchange.on_gone is not None:
                turn.exchange.on_gone()
        self._waiting.clear()

    def _expired(self) -> None:
        for turn in list(self._waiting):
            if turn.inference is not None and turn.answer is None:
                turn.inference.expire()
        self._call.fail(504, "the deadline of the request has passed")

    def flush(self) -> None:
        """An answer is there."""
        self._flush()


class _Turn:
    """One request of a stream."""

    __slots__ = ("_stream", "answer", "exchange", "inference")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.exchange: Exchange | None = None
        self.inference: Inference | None = None
        self.answer: bytes | None = None

    def answered(self, exchange: Exchange, status: int, body: bytes, _type: bytes, _headers: bytes) -> None:
        """What `Inference` calls."""
        if status == 200:
            self.answer = field(b"\x12", body)
        else:
            self.answer = _STREAM_RESPONSE(error_message=error_text(body)).SerializeToString()
        exchange.answer = b""
        exchange.on_gone = None
        self._stream.flush()


def not_served(name: str, version: str, asked: str, asked_version: str) -> str:
    """Why this server does not answer for a model; empty when it does."""
    if asked != name:
        return f"model {asked[:200]!r} is not served here; this server has {name!r}"
    if asked_version not in ("", version):
        return f"version {asked_version[:200]!r} is not served here; this server has {version!r}"
    return ""
