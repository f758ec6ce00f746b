"""JSON lines to a Kafka topic, one message each, by librdkafka (`confluent-kafka`, an extra: `serinus-runtime[kafka]`).

librdkafka batches, compresses and retries; it holds at most `_QUEUE_BYTES`. While it is full the log's thread waits,
the log's own queue fills, and lines are dropped there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from serinus_runtime.sinks.base import Sink, Stopping

_QUEUE_BYTES = 16 << 20
_QUEUE_LINES = 50_000
_POLL_SECONDS = 0.5
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_OPTIONS = {
    "acks": "acks",
    "compression": "compression.type",
    "linger": "linger.ms",
    "batch": "batch.size",
    "timeout": "delivery.timeout.ms",
}
_DEFAULTS: dict[str, str | int] = {
    "client.id": "serinus-runtime",
    "acks": "1",
    "compression.type": "lz4",
    "linger.ms": 50,
    "delivery.timeout.ms": 60_000,
    "queue.buffering.max.messages": _QUEUE_LINES,
    "queue.buffering.max.kbytes": _QUEUE_BYTES >> 10,
    "log_level": 0,
}


class KafkaSink(Sink):
    """Sends to `kafka://broker:9092[,broker:9092]/topic[?acks=all&compression=zstd&linger=100&batch=1000000]`.

    `options_file` holds further settings of librdkafka, `name=value` on a line: TLS, SASL, passwords.
    """

    gather_seconds = 0.2

    def __init__(self, url: str, *, options_file: Path | None = None) -> None:
        """Raises ValueError that says what is wrong with the address or the options, or that the library is missing."""
        super().__init__()
        brokers, self._topic, asked = parse(url)
        options = {**_DEFAULTS, "bootstrap.servers": brokers, **asked}
        if options_file is not None:
            try:
                options |= read_options(options_file.read_text())
            except OSError as error:
                raise ValueError(f"the options of Kafka cannot be read: {error}") from None
        try:
            import confluent_kafka
        except ImportError as error:
            raise ValueError(f"Kafka needs the extra `kafka`: install serinus-runtime[kafka] ({error})") from None
        self._trouble = ""
        try:
            self._producer: Any = confluent_kafka.Producer({**options, "error_cb": self._on_error})
        except confluent_kafka.KafkaException as error:
            raise ValueError(f"librdkafka refuses these options: {error}") from None
        self._lost_here = 0
        self._closed = threading.Event()
        # What became of lines is told in poll: on a thread of its own, also while nothing is written.
        self._poller = threading.Thread(target=self._poll, name="serinus-kafka", daemon=True)
        self._poller.start()

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        """Hands lines to librdkafka; what became of them is counted when it is known."""
        for line in lines:
            while True:
                try:
                    self._producer.produce(self._topic, line[:-1], on_delivery=self._delivered)
                    break
                except BufferError:
                    if stopping.wait(0.05):
                        self._lost_here += 1
                        break
        if self._trouble:
            trouble, self._trouble = self._trouble, ""
            raise OSError(trouble)

    def close(self, patience: float) -> None:
        """Waits for what is on its way."""
        self._closed.set()
        self._poller.join(2 * _POLL_SECONDS)
        if self._producer.flush(patience):
            self._producer.purge()
            self._producer.flush(0.5)
        self.failed += self._lost_here
        self._lost_here = 0

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_SECONDS)

    def _delivered(self, error: Any, _message: object) -> None:
        if error is None:
            self.written += 1
        else:
            self.failed += 1
            self._trouble = f"Kafka lost a line: {error}"

    def _on_error(self, error: Any) -> None:
        self._trouble = f"Kafka: {error}"


def parse(url: str) -> tuple[str, str, dict[str, str | int]]:
    """Brokers, topic and librdkafka's options in a `kafka://` address. Raises ValueError."""
    parts = urlsplit(url)
    topic = parts.path.removeprefix("/")
    if parts.scheme != "kafka" or not parts.netloc or "@" in parts.netloc or _TOPIC.fullmatch(topic) is None:
        raise ValueError(f"{url!r} is not a topic: write kafka://broker:9092/topic; passwords go into a file")
    options: dict[str, str | int] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"{url!r}: {name!r} is not an option; there are {', '.join(_OPTIONS)}")
        options[_OPTIONS[name]] = value
    return parts.netloc, topic, options


def read_options(text: str) -> Mapping[str, str]:
    """`name=value` lines; empty ones and those that begin with # say nothing. Raises ValueError."""
    options = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ValueError(f"line {number} of the options of Kafka is not name=value")
        options[name.strip()] = value.strip()
    return options
