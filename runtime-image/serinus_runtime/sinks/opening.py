"""Which sink an address means."""

from __future__ import annotations

from pathlib import Path

from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.sinks.base import Sink


def open_sink(config: Config) -> Sink:
    """The sink of `config.prediction_log`; what it needs is imported only now. Raises FailureError."""
    from serinus_runtime.sinks.files import FileSink, StdoutSink

    target = config.prediction_log
    if target == "stdout":
        return StdoutSink()
    if target.startswith("/"):
        return FileSink(Path(target), max_bytes=config.prediction_log_max_bytes, keep=config.prediction_log_keep)
    try:
        if target.startswith("kafka://"):
            from serinus_runtime.sinks.kafka import KafkaSink

            return KafkaSink(target, options_file=_path(config.prediction_log_options_file))
        from serinus_runtime.sinks.http import HttpSink

        return HttpSink(target, token_file=_path(config.prediction_log_token_file))
    except ValueError as error:
        raise FailureError(Reason.INVALID_CONFIG, f"SERINUS_PREDICTION_LOG: {error}") from error


def _path(text: str) -> Path | None:
    return Path(text) if text else None
