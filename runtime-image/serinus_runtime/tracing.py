"""OpenTelemetry: a server span per inference with its stages as children, sent over OTLP/HTTP.

The SDK is imported only when an endpoint is set, and reads its own OTEL_* variables (sampler, headers, queue).
Spans wait in a bounded queue for a thread that sends them; what does not fit, or cannot be sent, is counted and gone.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from serinus_runtime import logs
from serinus_runtime.failures import FailureError, Reason

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

_CLOSE_SECONDS = 3.0
_BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_STAGES = ("decode", "queue", "infer", "encode")


def endpoint(environ: Mapping[str, str]) -> str:
    """Where spans go, by the standard variables; empty: nowhere. Raises ValueError."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    name = _TRACES if environ.get(_TRACES) else _BASE
    url = environ.get(name, "").strip()
    if not url:
        return ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"{name}: {url!r} is not an address: write http://HOST:4318, or https://")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environ.get(variable, "http/protobuf") != "http/protobuf":
            raise ValueError(f"{variable}: only OTLP over HTTP is spoken here: write http/protobuf, and port 4318")
    return url if name == _TRACES else url.rstrip("/") + "/v1/traces"


def trace_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The id of the client's trace, 32 hex digits, where it has one (W3C trace context); else empty."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return b""
    found = _TRACEPARENT.fullmatch(parent.strip())
    return found[1] if found is not None and found[1].strip(b"0") else b""


class Served(msgspec.Struct, frozen=True):
    """What every span says about who answered."""

    model: str
    version: str
    digest: str = ""
    revision: str = ""
    namespace: str = ""
    deployment: str = ""


class Trace:
    """One request's span. `trace_id` is 32 hex digits; `lines` are header lines for the answer."""

    __slots__ = ("_offset", "_received", "_span", "_tracing", "lines", "trace_id")

    def __init__(self, tracing: Tracing, span: Span, received: float, offset: int, lines: bytes) -> None:
        context = span.get_span_context()
        self._tracing = tracing
        self._span = span
        self._received = received
        self._offset = offset
        self.trace_id = b"%032x" % context.trace_id
        self.lines = lines + b"traceresponse: 00-%b-%016x-%02x\r\n" % (
            self.trace_id, context.span_id, context.trace_flags,
        )  # fmt: skip

    def traceparent(self) -> bytes:
        """What a request that is made for this one says, to be its child."""
        context = self._span.get_span_context()
        return b"00-%b-%016x-%02x" % (self.trace_id, context.span_id, context.trace_flags)

    def end(self, code: int, request_id: bytes, queued: float, started: float, finished: float, rows: int) -> None:
        """It was answered with `code`. Times are of time.monotonic; those that were not reached are 0."""
        span = self._span
        now = time.monotonic()
        if span.is_recording():
            self._tracing.finish(span, self._offset, code, request_id, rows,
                                 (self._received, queued, started, finished, now))  # fmt: skip
        span.end(end_time=self._offset + int(now * 1e9))


class Tracing:
    """Makes spans and sends them to `url`. Raises FailureError where the SDK is not installed."""

    def __init__(self, url: str, served: Served) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise FailureError(
                Reason.INVALID_CONFIG, f"{_BASE} needs the OpenTelemetry SDK: install serinus-runtime[otel]"
            ) from None
        # It would write to stderr, line by line, that its collector is away; we count, and tell once a minute.
        logging.getLogger("opentelemetry").propagate = False
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        resource = {"service.version": served.version, "k8s.namespace.name": served.namespace}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            resource["service.name"] = served.deployment or served.model
        self._provider = TracerProvider(
            resource=Resource.create({name: value for name, value in resource.items() if value}), shutdown_on_exit=False
        )
        self._counts = _counting(OTLPSpanExporter(endpoint=url))
        self._provider.add_span_processor(self._counts.processor)
        self._tracer = self._provider.get_tracer("serinus-runtime")
        self._propagator = TraceContextTextMapPropagator()
        self._api: Any = trace
        self._server, self._internal = trace.SpanKind.SERVER, trace.SpanKind.INTERNAL
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._name = f"infer {served.model}"
        self._attributes: dict[str, str] = {
            "serinus.model.name": served.model,
            "serinus.model.version": served.version,
            "serinus.model.digest": served.digest,
            "serinus.revision": served.revision,
        }

    def begin(self, headers: Mapping[bytes, bytes], path: bytes, received: float) -> Trace:
        """The span of a request that arrived at `received` (time.monotonic), under its client's if it has one."""
        context, lines = None, b""
        parent = headers.get(b"traceparent")
        if parent is not None:
            carrier = {"traceparent": parent.decode("latin-1")}
            if b"tracestate" in headers:
                carrier["tracestate"] = headers[b"tracestate"].decode("latin-1")
            context = self._propagator.extract(carrier)
            if self._api.get_current_span(context).get_span_context().is_valid:
                lines = b"traceparent: %b\r\n" % parent.strip()
        offset = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            self._name,
            context=context if context is not None else self._api.set_span_in_context(self._api.INVALID_SPAN),
            kind=self._server,
            attributes={"url.path": path.decode("latin-1"), "http.request.method": "POST"},
            start_time=offset + int(received * 1e9),
        )
        return Trace(self, span, received, offset, lines)

    def finish(
        self, span: Span, offset: int, code: int, request_id: bytes, rows: int, times: tuple[float, ...]
    ) -> None:
        """Says what became of the request, and makes a child of every stage that it reached."""
        span.set_attributes(
            {
                **self._attributes,
                "http.response.status_code": code,
                "serinus.rows": rows,
                "serinus.request_id": request_id.decode("latin-1"),
            }
        )
        if code >= 500:
            span.set_status(self._error)
        within = self._api.set_span_in_context(span)
        for stage, start, end in zip(_STAGES, times, times[1:], strict=False):
            if not start or not end:
                break
            child = self._tracer.start_span(
                stage, context=within, kind=self._internal, start_time=offset + int(start * 1e9)
            )
            child.end(end_time=offset + int(end * 1e9))

    def collect(self, names: Sequence[str], values: Sequence[str]) -> list[Metric]:
        """Spans by what became of them, with the labels that all metrics have."""
        family = CounterMetricFamily(
            "serinus_trace_spans", "Spans that were sampled, by what became of them", labels=[*names, "outcome"]
        )
        counts = self._counts
        for outcome, count in (("sent", counts.sent), ("failed", counts.failed), ("dropped", counts.dropped)):
            family.add_metric([*values, outcome], count)
        return [family]

    def close(self) -> None:
        """Sends what waits, for some seconds at most. Blocks."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


class _Counts:
    processor: SpanProcessor
    sent = 0
    failed = 0
    dropped = 0
    taken = 0
    handed = 0


def _counting(exporter: SpanExporter) -> _Counts:
    """A batch processor that drops by itself what would not fit, since the SDK's own does not say how much it did."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    counts = _Counts()
    told = [-1e9]

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            counts.handed += len(spans)
            result = SpanExportResult.FAILURE
            try:
                result = exporter.export(spans)
            finally:
                if result is SpanExportResult.SUCCESS:
                    counts.sent += len(spans)
                else:
                    counts.failed += len(spans)
                    if time.monotonic() - told[0] >= 60.0:
                        told[0] = time.monotonic()
                        logs.event("warning", "spans cannot be sent", spans=len(spans))
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    size = max(1, int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or 2048))
    batch = min(size, max(1, int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or 512)))

    class Processor(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if span.context is None or not span.context.trace_flags.sampled:
                return
            if counts.taken - counts.handed >= size:
                counts.dropped += 1
                return
            counts.taken += 1
            super().on_end(span)

    counts.processor = Processor(Exporter(), max_queue_size=size, max_export_batch_size=batch)
    return counts
