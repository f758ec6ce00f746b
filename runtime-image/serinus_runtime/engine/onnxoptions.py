"""How ONNX Runtime is to run a model: SERINUS_ONNX_*. Every default is what a small model on one core wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")
Read = Callable[[str, Callable[[str], Any], Any], Any]
"""`read(name, parse, default)`: a setting without its SERINUS_; parse raises ValueError."""

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
_SHORT = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
LEVELS = ("off", "basic", "extended", "all")
SWITCHES = ("auto", "true", "false")


class OnnxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """See docs/runtime/engines.md."""

    providers: tuple[str, ...] = (CPU,)
    """In the order of preference."""
    provider_options: Mapping[str, Mapping[str, str]] = {}
    cpu_fallback: bool = False
    """Serve on the CPU when another provider is absent or does not start, instead of failing."""
    inter_threads: int = 1
    thread_affinity: str = ""
    """Cores of the threads inside an operator, in ONNX Runtime's form, such as `1;2;3`."""
    spinning: bool = False
    optimization: str = "all"
    optimized_dir: str = ""
    """Where optimised models are kept, so that the next start is faster; empty: nowhere."""
    arena: bool = True
    mem_pattern: bool = True
    arena_shrink: bool = False
    """Give memory back after every batch."""
    own_sessions: bool = False
    """One session per instance instead of one for all."""
    io_binding: str = "auto"
    cuda_graph: bool = False
    session_config: Mapping[str, str] = {}


def read_options(read: Read) -> OnnxOptions:
    """The options as `read` finds them."""
    base = OnnxOptions()
    return OnnxOptions(
        providers=read("ONNX_PROVIDERS", _providers, base.providers),
        provider_options=read("ONNX_PROVIDER_OPTIONS", _provider_options, base.provider_options),
        cpu_fallback=read("ONNX_CPU_FALLBACK", _switch, base.cpu_fallback),
        inter_threads=read("ONNX_INTER_THREADS", _threads, base.inter_threads),
        thread_affinity=read("ONNX_THREAD_AFFINITY", str, base.thread_affinity),
        spinning=read("ONNX_SPINNING", _switch, base.spinning),
        optimization=read("ONNX_OPTIMIZATION", _one_of(LEVELS), base.optimization),
        optimized_dir=read("ONNX_OPTIMIZED_DIR", _absolute, base.optimized_dir),
        arena=read("ONNX_ARENA", _switch, base.arena),
        mem_pattern=read("ONNX_MEM_PATTERN", _switch, base.mem_pattern),
        arena_shrink=read("ONNX_ARENA_SHRINK", _switch, base.arena_shrink),
        own_sessions=read("ONNX_OWN_SESSIONS", _switch, base.own_sessions),
        io_binding=read("ONNX_IO_BINDING", _one_of(SWITCHES), base.io_binding),
        cuda_graph=read("ONNX_CUDA_GRAPH", _switch, base.cuda_graph),
        session_config=read("ONNX_SESSION_CONFIG", _texts, base.session_config),
    )


def provider(name: str) -> str:
    """ONNX Runtime's name of a provider: `cuda` is CUDAExecutionProvider."""
    return _SHORT.get(name.lower(), name)


def _providers(text: str) -> tuple[str, ...]:
    names = tuple(provider(part.strip()) for part in text.split(",") if part.strip())
    for name in names:
        if not name.endswith(_SUFFIX):
            raise ValueError(f"{name!r} is not a provider: write {', '.join(_SHORT)}, or the full name of another")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{text!r} must name providers, each once, such as tensorrt,cuda,cpu")
    return names


def _json(text: str, kind: type[_T], example: str) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{error}; write such as {example}") from None


def _provider_options(text: str) -> dict[str, dict[str, str]]:
    told = _json(text, dict[str, dict[str, str | int | bool]], '{"cuda": {"device_id": "0"}}')
    return {provider(name): {key: _plain(value) for key, value in options.items()} for name, options in told.items()}


def _texts(text: str) -> dict[str, str]:
    told = _json(text, dict[str, str | int | bool], '{"session.set_denormal_as_zero": "1"}')
    return {key: _plain(value) for key, value in told.items()}


def _plain(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not a switch: write true or false")
    return text == "true"


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not known: write one of {', '.join(words)}")
        return text

    return parse


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1024):
        raise ValueError(f"{text!r} is not allowed: write a whole number from 1 to 1024")
    return int(text)


def _absolute(text: str) -> str:
    if not Path(text).is_absolute():
        raise ValueError(f"{text!r} is not an absolute path")
    return text
