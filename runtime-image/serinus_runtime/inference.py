"""One inference request on its way: checks, decoding, the queue, the answer, what is counted and logged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgspec

from serinus_runtime import logs
from serinus_runtime.asked import Front, InferRequest
from serinus_runtime.circuit import CircuitOpenError
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import EngineError, EngineTimeoutError, EngineUnavailableError
from serinus_runtime.http import JSON, Exchange
from serinus_runtime.metrics import Metrics
from serinus_runtime.predictionlog import INLINE_BYTES, Prediction, who
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.queueerrors import QueueFullError, QueueTimeoutError, TooManyRowsError
from serinus_runtime.state import GOING, Model, State
from serinus_runtime.tickets import Ticket
from serinus_runtime.tracing import Trace, trace_id

_GONE = 499
"""What a span says when nobody waited for the answer, as nginx calls it."""
_ENCODINGS = (b"", b"identity")
_NO_INPUTS: Final[Mapping[str, Array]] = {}
_now: Final = time.monotonic


class Inference(Ticket):
    """From a whole HTTP request to its answer. It is its own ticket in the batcher."""

    def __init__(self, exchange: Exchange, state: State, metrics: Metrics, front: Front | None) -> None:
        super().__init__(_NO_INPUTS, 0, ())
        self._exchange = exchange
        self._state = state
        self._metrics = metrics
        self._model = state.model
        self._front = front
        self._request: InferRequest | None = None
        self.admitted = False
        """True: it was let in before, as a job."""
        self.trace: Trace | None = None

    def begin(self) -> None:
        """Checks, decodes and queues the request."""
        exchange, state, model, front = self._exchange, self._state, self._model, self._front
        self._metrics.inflight += 1
        if model is None or front is None:
            self._refuse(*state.away.refusal)
            return
        if state.refusing and not self.admitted:
            exchange.close = True
            self._refuse(*GOING)
            return
        if state.tracing is not None:
            self.trace = state.tracing.begin(exchange.headers, exchange.path, exchange.received)
            self.lines = self.trace.lines
        if (
            state.ingress is not None
            and not self.admitted
            and (refusal := state.ingress.admit(exchange, self)) is not None
        ):
            self._refuse(*refusal)
            return
        headers = exchange.headers
        if not exchange.plain and b"content-encoding" in headers and headers[b"content-encoding"] not in _ENCODINGS:
            self._refuse("invalid", 415, "compressed bodies are not supported: send it as it is")
            return
        try:
            self._enqueue(exchange, model, front)
        except InvalidRequestError as error:
            self._refuse("invalid", 400, str(error))
        except (TooManyRowsError, QueueFullError) as error:
            self._not_queued(error)
        except Exception as error:
            logs.event("error", "an inference request failed", error=repr(error))
            self._finish(500, b'{"error":"internal error"}')
        else:
            exchange.body = b""
            if exchange.answer is None:
                exchange.on_gone = self._gone

    def _enqueue(self, exchange: Exchange, model: Model, front: Front) -> None:
        start = _now()
        # In overload, refusing must cost less than decoding.
        model.batcher.refuse_if_full()
        self._request = request = front.read(exchange.body, exchange.headers)
        self.inputs, self.rows, self.outputs = request.inputs, request.rows, request.outputs
        # Raw tensors keep the whole body; strings and ids are not seen in the size of an array.
        self.held = len(exchange.body) * model.weight
        if (ingress := self._state.ingress) is not None:
            ingress.decoded(self, self.rows, request.parameters)
        if (cache := self._state.cache) is None:
            model.batcher.put(self)
        else:
            cache.ask(self, model.batcher.put)
        self._metrics.observe_decode(self.enqueued - start)

    def _gone(self) -> None:
        self.cancel()
        if self.trace is not None:
            self.trace.end(_GONE, b"", self.enqueued, self.started, self.finished, self.rows)
        self._metrics.inflight -= 1

    def expire(self) -> None:
        """The client's deadline has passed: what has not been run is not run."""
        self.cancel()
        self._refuse("timeout", 504, "the deadline of the request has passed")

    def done(self) -> None:
        """Answers with what the batcher found."""
        result, metrics, request, front, model = self.result, self._metrics, self._request, self._front, self._model
        if isinstance(result, list) and request is not None and front is not None and model is not None:
            metrics.observe_queue(self.started - self.enqueued)
            model.statistics.answered(self.started, self.finished)
            start = _now()
            try:
                batch = self.batch
                if batch is not None and front is model.codec and request.plain:
                    body, content_type, headers = model.codec.rows(batch)[self.place], JSON, b""
                else:
                    body, content_type, headers = front.reply(request, result)
            except Exception as error:
                logs.event("error", "an answer could not be encoded", error=repr(error))
                self._finish(500, b'{"error":"the answer could not be encoded"}')
                return
            end = _now()
            metrics.observe_encode(end - start)
            self._finish(200, body, headers, content_type, end)
        elif isinstance(result, CircuitOpenError):
            later = b"retry-after: %d\r\n" % max(1, round(result.retry_after))
            self._refuse("circuit_open", 503, str(result), later)
        elif isinstance(result, (TooManyRowsError, QueueFullError)):
            self._not_queued(result)
        elif isinstance(result, QueueTimeoutError):
            self._refuse("timeout", 504, str(result))
        elif isinstance(result, EngineTimeoutError):
            self._refuse("timeout", 504, f"the model failed: {result}")
        elif isinstance(result, EngineUnavailableError):
            self._finish(503, msgspec.json.encode({"error": str(result)}), b"retry-after: 1\r\n")
        else:
            text = f"the model failed: {result}" if isinstance(result, EngineError) else "internal error"
            logs.event("error", "inference failed", error=repr(result)[:500])
            self._finish(500, msgspec.json.encode({"error": text}))

    def _not_queued(self, error: TooManyRowsError | QueueFullError) -> None:
        if isinstance(error, TooManyRowsError):
            self._refuse("too_large", 413, str(error))
            return
        later = b"retry-after: %d\r\n" % max(1, round(error.retry_after))
        self._refuse("queue_full", 429, "the queue is full: try again later", later)

    def _refuse(self, reason: str, status: int, message: str, headers: bytes = b"") -> None:
        self._metrics.rejected[reason] += 1
        self._finish(status, msgspec.json.encode({"error": message}), headers)

    def _finish(
        self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = JSON, now: float = 0.0
    ) -> None:
        exchange, metrics = self._exchange, self._metrics
        answered = now or _now()
        metrics.inflight -= 1
        metrics.answered(status, answered - exchange.received)
        exchange.respond(status, body, content_type, headers + self.lines if self.lines else headers)
        if self.trace is not None:
            self.trace.end(status, exchange.request_id, self.enqueued, self.started, self.finished, self.rows)
        state = self._state
        if state.predictions is not None or state.tap is not None:
            self._tell(status, answered, state)

    def _tell(self, status: int, answered: float, state: State) -> None:
        """Says what became of the request to the log, and to who looks on."""
        exchange, request, batch, result = self._exchange, self._request, self.batch, self.result
        predictions, tap, told = state.predictions, state.tap, exchange.headers
        trace = b""
        if self.trace is not None:
            trace = self.trace.trace_id
        elif not exchange.plain and b"traceparent" in told:
            trace = trace_id(told)
        outputs = b"" if batch is None or predictions is None else predictions.outputs(batch)[self.place]
        if predictions is not None and tap is None and outputs and request is not None and predictions.plain:
            raw = request.raw
            if raw and len(raw) <= INLINE_BYTES:
                if trace or self.client:
                    outputs += who(self.client, trace)
                predictions.told(
                    status, exchange.request_id, exchange.received, self.enqueued, self.started, self.finished,
                    answered, self.rows, request.kind, raw, outputs,
                )  # fmt: skip
                return
        prediction = Prediction(
            status,
            exchange.request_id,
            exchange.received,
            self.enqueued,
            self.started,
            self.finished,
            answered,
            self.rows,
            None if request is None else request.inputs,
            self.outputs if isinstance(result, list) else (),
            result if isinstance(result, list) else [],
            self.client,
            trace,
            outputs,
        )
        if predictions is not None:
            predictions.add(prediction)
        if tap is not None:
            tap(prediction)
