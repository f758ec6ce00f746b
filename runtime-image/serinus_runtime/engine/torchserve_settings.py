"""What TorchServe is told: its configuration, its logging, its command line and environment. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from serinus_runtime.config import Config

LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout pattern="%p %c{1} %replace{%m}{[\\r\\n]+}{ | } %ex{3}%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="io.netty" level="error"/>
    <Logger name="MODEL_LOG" level="info">
      <RegexFilter regex="Backend received inference.*" useRawMsg="true" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""
"""Lines on stdout only, which the front turns into its own: TorchServe's default writes files that nobody bounds."""
_KEY_MINUTES = 52_560_000
"""Its keys live as long as the process: nobody would renew them."""


class Places(msgspec.Struct, frozen=True):
    """Files and sockets of one TorchServe, in a directory that only this user can enter."""

    root: Path

    @property
    def store(self) -> Path:
        """The model store: one unpacked model."""
        return self.root / "store"

    @property
    def home(self) -> Path:
        """Its working directory, where it writes the keys."""
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        """Its /tmp."""
        return self.root / "tmp"

    @property
    def configuration(self) -> Path:
        """config.properties."""
        return self.root / "config.properties"

    @property
    def logging(self) -> Path:
        """log4j2.xml."""
        return self.root / "log4j2.xml"

    @property
    def keys(self) -> Path:
        """Where it writes its keys at start."""
        return self.home / "key_file.json"

    def socket(self, api: str) -> Path:
        """The socket of `inference`, `management` or `metrics`."""
        return self.root / f"{api}.sock"


def batching(config: Config, style: str) -> tuple[int, int]:
    """TorchServe's batch size and delay in milliseconds.

    Where the front sends whole batches as one request, TorchServe must not wait for more; where every row is a request
    of its own, TorchServe joins them by the front's numbers.
    """
    if style == "instances":
        return 1, 1
    return config.usual_batch, max(1, math.ceil(config.batch_max_delay * 1000))


def properties(config: Config, places: Places, version: str, style: str) -> str:
    """config.properties, with everything closed that is open by default."""
    size, delay = batching(config, style)
    seconds = max(1, math.ceil(config.engine_timeout))
    start = max(1, math.ceil(config.engine_start_timeout))
    model = {
        "defaultVersion": True,
        "marName": config.model_name,
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": size,
        "maxBatchDelay": delay,
        "responseTimeout": seconds,
        "startupTimeout": start,
    }
    # Every answer may be larger than the requests are.
    response = max(64 << 20, config.max_request_bytes)
    told = {
        # Sockets in a directory of our own: nobody else on the pod's loopback address can reach them.
        "inference_address": f"unix:{places.socket('inference')}",
        "management_address": f"unix:{places.socket('management')}",
        "metrics_address": f"unix:{places.socket('metrics')}",
        # gRPC cannot be switched off: loopback, any free port, and it wants the token as well.
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": 0,
        "grpc_management_port": 0,
        "disable_token_authorization": False,
        "token_expiration_min": _KEY_MINUTES,
        "enable_model_api": False,
        "enable_envvars_config": False,
        "use_env_allowed_urls": False,
        "allowed_urls": f"file://{places.store}/.*",
        "install_py_dep_per_model": False,
        "blacklist_env_vars": ".*(TOKEN|SECRET|PASSWORD|KEY).*",
        "disable_system_metrics": True,
        "enable_metrics_api": True,
        "metrics_mode": "prometheus",
        "model_store": places.store,
        "load_models": f"{config.model_name}={config.model_name}",
        "default_workers_per_model": 1,
        "job_queue_size": config.queue_max_length,
        "default_response_timeout": seconds,
        "default_startup_timeout": start,
        "unregister_model_timeout": 10,
        "max_request_size": config.max_request_bytes + (1 << 20),
        "max_response_size": response,
        "number_of_netty_threads": 2,
        "netty_client_threads": 2,
        "async_logging": False,
        "models": json.dumps({config.model_name: {version: model}}, separators=(",", ":")),
    }
    return "".join(f"{key}={_text(value)}\n" for key, value in told.items())


def command(config: Config, places: Places) -> list[str]:
    """What starts it: Java itself, without the Python launcher, which leaves files behind and knows no signals."""
    return [
        config.java or "java",
        "-XX:MaxRAMPercentage=25",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Djava.io.tmpdir={places.temporary}",
        f"-Dlog4j.configurationFile=file://{places.logging}",
        f"-Dmodel_server_home={config.torchserve_home}",
        "-cp",
        f"{config.torchserve_home}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        config.torch_python or "python3",
        "-f",
        str(places.configuration),
        "-s",
        str(places.store),
        "-ncs",
    ]


def environment(config: Config, places: Places, ours: Mapping[str, str]) -> dict[str, str]:
    """Of the front's environment only what finds programs and devices."""
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "JAVA_HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES")  # fmt: skip
    threads = str(config.threads)
    return {
        **{key: ours[key] for key in kept if key in ours},
        "HOME": str(places.home),
        "TMPDIR": str(places.temporary),
        "LOG_LOCATION": str(places.temporary),
        "METRICS_LOCATION": str(places.temporary),
        "PYTHONPATH": str(config.torchserve_home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # A properties file takes a backslash for an escape.
    return str(value).replace("\\", "\\\\")
