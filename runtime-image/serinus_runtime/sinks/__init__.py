"""Where the prediction log's lines go: standard output, a file, an HTTP server, Kafka. One file each."""

from serinus_runtime.sinks.base import Sink, Stopping

__all__ = ["Sink", "Stopping"]
