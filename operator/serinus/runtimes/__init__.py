"""One file per engine: container image, command, ports, probes and environment."""

from __future__ import annotations

from serinus.api.runtime import Engine
from serinus.runtimes import (
    bentoml,
    onnx,
    proxy,
    rayserve,
    tensorrt_llm,
    tfserving,
    tgi,
    torch,
    torchserve,
    triton,
    vllm,
)
from serinus.runtimes.base import RuntimeTemplate

TEMPLATES: dict[Engine, RuntimeTemplate] = {
    Engine.ONNX: onnx.TEMPLATE,
    Engine.PROXY: proxy.TEMPLATE,
    Engine.TRITON: triton.TEMPLATE,
    Engine.TF_SERVING: tfserving.TEMPLATE,
    Engine.VLLM: vllm.TEMPLATE,
    Engine.TGI: tgi.TEMPLATE,
    Engine.TENSORRT_LLM: tensorrt_llm.TEMPLATE,
    Engine.BENTOML: bentoml.TEMPLATE,
    Engine.RAY_SERVE: rayserve.TEMPLATE,
    Engine.TORCH: torch.TEMPLATE,
    Engine.TORCHSERVE: torchserve.TEMPLATE,
}
