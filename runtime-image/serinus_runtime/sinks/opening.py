"""Which sink an address means, and the log that writes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from serinus_runtime import __version__
from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.identity import Identity
from serinus_runtime.predictionlog import OFF, PredictionLog, preprocessing_hash
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


def open_log(config: Config, digest: str, runtime: str, columns: Mapping[str, Sequence[str]]) -> PredictionLog | None:
    """The prediction log of a model, if there is to be one; `runtime` is the engine's. Raises FailureError."""
    if config.prediction_log == OFF:
        return None
    return PredictionLog(
        open_sink(config),
        Identity(
            model=config.model_name,
            version=config.model_version,
            digest=digest,
            preprocessing=preprocessing_hash(config.model_dir),
            runtime=f"serinus-runtime-{__version__} {runtime}",
            revision=config.revision,
            namespace=config.namespace,
            deployment=config.deployment,
        ),
        sample=config.prediction_log_sample,
        payloads=config.prediction_log_payloads,
        redact=config.prediction_log_redact,
        columns=columns,
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None
