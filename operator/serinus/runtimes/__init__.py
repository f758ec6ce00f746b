"""One file per engine: container image, command, ports, probes and environment."""

from __future__ import annotations

from serinus.api.runtime import Engine
from serinus.runtimes import onnx
from serinus.runtimes.base import RuntimeTemplate

TEMPLATES: dict[Engine, RuntimeTemplate] = {Engine.ONNX: onnx.TEMPLATE}
