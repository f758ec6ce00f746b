"""Opens ONNX Runtime sessions that run where they were meant to, or not at all."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnxruntime

from serinus_runtime import logs
from serinus_runtime.engine.onnxoptions import CPU, OnnxOptions
from serinus_runtime.failures import FailureError, Reason

_LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_CUDA_LIKE = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
_OPENVINO = "OpenVINOExecutionProvider"
_NOT_ALL_NODES = "fallback to CPU EP has been explicitly disabled"
"""Part of what ONNX Runtime says when it was told not to use the CPU and a node has no other place."""


def open_session(path: Path, threads: int, options: OnnxOptions) -> Any:
    """A session for `path` on the providers that were asked for.

    ONNX Runtime falls back to the CPU without a word when a provider is absent or does not start; this does not, unless
    `options.cpu_fallback`. `threads` holds for OpenVINO as well, which would take every core of the machine. Raises
    FailureError(INVALID_CONFIG), or ONNX Runtime's own errors for bad models.
    """
    wanted = options.providers
    installed = onnxruntime.get_available_providers()
    missing = [name for name in wanted if name not in installed]
    if missing and not options.cpu_fallback:
        raise FailureError(
            Reason.INVALID_CONFIG,
            f"SERINUS_ONNX_PROVIDERS: {', '.join(missing)} is not part of this image's ONNX Runtime "
            f"{onnxruntime.__version__}, which has {', '.join(installed)}; use another image, choose from these, or "
            "set SERINUS_ONNX_CPU_FALLBACK=true to run on the CPU",
        )
    if any(name in _CUDA_LIKE for name in wanted) and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's own libraries, where they came as wheels beside ONNX Runtime's.
        onnxruntime.preload_dlls()
    names = [name for name in wanted if name in installed]
    if options.cpu_fallback and CPU not in names:
        names.append(CPU)
    told = dict(options.provider_options)
    if options.cuda_graph:
        told["CUDAExecutionProvider"] = {"enable_cuda_graph": "1", **told.get("CUDAExecutionProvider", {})}
    if _OPENVINO in names:
        told[_OPENVINO] = {"num_of_threads": str(threads), **told.get(_OPENVINO, {})}
    settings = _settings(threads, options)
    source = _optimized(path, settings, options) if options.optimized_dir else path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            session = onnxruntime.InferenceSession(
                str(source), sess_options=settings, providers=[(name, told.get(name, {})) for name in names]
            )
        except Exception as error:
            if _NOT_ALL_NODES not in str(error):
                raise
            raise FailureError(
                Reason.INVALID_CONFIG,
                f"SERINUS_ONNX_PROVIDERS: the model has operators that {', '.join(names)} cannot run; add `cpu` at the "
                "end, and those run on the CPU",
            ) from None
    found = session.get_providers()
    lost = [name for name in wanted if name not in found]
    if lost:
        text = f"{', '.join(lost)} did not start and ONNX Runtime went on with {', '.join(found)}"
        if not options.cpu_fallback:
            raise FailureError(
                Reason.INVALID_CONFIG,
                f"SERINUS_ONNX_PROVIDERS: {text}; look at the device and its driver, or set "
                "SERINUS_ONNX_CPU_FALLBACK=true to run on the CPU",
            )
        logs.event("warning", "the model runs on the CPU", why=text)
    return session


def _settings(threads: int, options: OnnxOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = options.inter_threads
    if options.inter_threads > 1:
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    settings.log_severity_level = 4
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options.optimization])
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.mem_pattern
    # Spinning threads burn the CPU quota that the event loop of this and other pods needs.
    entries = {"session.intra_op.allow_spinning": str(int(options.spinning))}
    entries["session.inter_op.allow_spinning"] = entries["session.intra_op.allow_spinning"]
    if options.thread_affinity:
        entries["session.intra_op_thread_affinities"] = options.thread_affinity
    if CPU not in options.providers and not options.cpu_fallback:
        entries["session.disable_cpu_ep_fallback"] = "1"
    for key, value in {**entries, **options.session_config}.items():
        settings.add_session_config_entry(key, value)
    return settings


def _optimized(path: Path, settings: Any, options: OnnxOptions) -> Path:
    """The optimised copy of `path`, made now if there is none. What depends on the processor is not written down."""
    digest = hashlib.sha256(path.read_bytes())
    level = "basic" if options.optimization == "basic" else "extended"
    digest.update(f"\0{onnxruntime.__version__}\0{level}\0{options.providers}".encode())
    kept = Path(options.optimized_dir) / f"{digest.hexdigest()}.onnx"
    if kept.is_file() or options.optimization == "off":
        return kept if kept.is_file() else path
    maker = onnxruntime.SessionOptions()
    maker.log_severity_level = 4
    maker.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            made = Path(scratch) / "model.onnx"
            maker.optimized_model_filepath = str(made)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                onnxruntime.InferenceSession(str(path), sess_options=maker, providers=[CPU])
            made.replace(kept)
    except Exception as error:
        # Such as a full disk, or a model too large for one file: the model itself may be fine.
        logs.event(
            "warning", "the optimised model cannot be kept", directory=options.optimized_dir, error=str(error)[:300]
        )
        return path
    return kept
