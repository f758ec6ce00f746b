"""The operator's own configuration, from its environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from serinus.api.units import Duration


class SettingsError(Exception):
    """A variable is missing or wrong; says which, and what to write."""


@dataclass(frozen=True)
class OperatorSettings:
    """How this process runs."""

    prometheus_url: str
    runtime_image: str
    watch_namespaces: tuple[str, ...]
    """Empty: all."""
    lease_namespace: str
    lease_name: str
    lease_duration: float
    """Seconds."""
    identity: str
    tick: float
    """Seconds between two looks at Prometheus while a release is under way."""
    webhook_hosts: tuple[str, ...]
    """Patterns of the hosts that webhooks and notifications may call; empty: any."""
    http_port: int
    smoke_key_file: Path | None
    """Holds the secret from which API keys for smoke tests are derived."""
    log_format: str
    notifications: Path | None = None
    """YAML file with whom to tell of every release."""
    receivers: Path | None = None
    """Folder with a file per receiver of messages, each with an address in it."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Reads SERINUS_* variables.

        Raises:
            SettingsError: one of them cannot be used.
        """
        url = env.get("SERINUS_PROMETHEUS_URL", "")
        if not url.startswith(("http://", "https://")):
            raise SettingsError(
                "SERINUS_PROMETHEUS_URL must be the address of Prometheus, for example "
                f"http://prometheus-server.monitoring.svc, got {url!r}"
            )
        log_format = env.get("SERINUS_LOG_FORMAT", "json")
        if log_format not in ("json", "text"):
            raise SettingsError(f"SERINUS_LOG_FORMAT must be json or text, got {log_format!r}")
        names = env.get("SERINUS_WATCH_NAMESPACES", "")
        return cls(
            prometheus_url=url.rstrip("/"),
            runtime_image=env.get("SERINUS_RUNTIME_IMAGE", "serinus-runtime:dev"),
            watch_namespaces=tuple(name.strip() for name in names.split(",") if name.strip()),
            lease_namespace=env.get("SERINUS_LEASE_NAMESPACE", "default"),
            lease_name=env.get("SERINUS_LEASE_NAME", "serinus-operator"),
            lease_duration=_seconds(env, "SERINUS_LEASE_DURATION", "15s"),
            identity=env.get("SERINUS_POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
            tick=_seconds(env, "SERINUS_TICK", "2s"),
            smoke_key_file=Path(path) if (path := env.get("SERINUS_SMOKE_KEY_FILE")) else None,
            webhook_hosts=tuple(env.get("SERINUS_WEBHOOK_HOSTS", "").replace(",", " ").split()),
            http_port=_integer(env, "SERINUS_HTTP_PORT", "8080"),
            log_format=log_format,
            notifications=_path(env, "SERINUS_NOTIFICATIONS"),
            receivers=_path(env, "SERINUS_RECEIVERS"),
        )


def _seconds(env: Mapping[str, str], name: str, default: str) -> float:
    text = env.get(name, default)
    try:
        seconds = Duration(text).seconds
    except ValueError as error:
        raise SettingsError(f"{name} must be a duration such as {default}, got {text!r}") from error
    if seconds <= 0:
        raise SettingsError(f"{name} must be more than 0, got {text!r}")
    return seconds


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _integer(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name, default)
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise SettingsError(f"{name} must be a port number, got {text!r}")
    return int(text)
