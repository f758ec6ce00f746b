"""Who is measured, what each needs from PyPI, and how each is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One server. `requirements` are None for what runs in the project's own environment."""

    name: str
    file: str
    path: str
    requirements: tuple[str, ...] | None = None
    body: str = "oip"
    """Which form of the inputs it understands: "oip" or "bento"."""
    seconds_to_start: float = 60.0
    interpreter: str = ""
    """A Python to make its environment with, where the project's own does not do."""
    settings: tuple[tuple[str, str], ...] = ()
    """Environment variables."""
    models: tuple[str, ...] = ("trees", "mlp")
    """Which of the models it serves."""
    compiled: bool = True
    """False: the runtime's sources as they are, for servers of this project."""
    warm_seconds: float = 1.0
    """Of load before the first measurement; Java compiles while it runs."""
    torch: str = ""
    """For our own runtime: the engine `torch` or `torchserve` instead of ONNX Runtime."""
    absent: str = ""
    """Why it cannot be measured at all."""


INFER = "/v2/models/model/infer"
_LOG = (("SERINUS_PREDICTION_LOG", "LOGFILE"),)
_ORT = ("onnxruntime>=1.26", "numpy>=2,<3")


def _ts(batch: int, delay: int) -> tuple[tuple[str, str], ...]:
    return ("BENCH_TS_BATCH", str(batch)), ("BENCH_TS_DELAY", str(delay))


PEERS = (
    Peer("serinus", "", INFER, models=("trees", "mlp", "image")),
    Peer("serinus-log", "", INFER, settings=_LOG),
    Peer("serinus-pure", "", INFER, compiled=False, models=("trees",)),
    Peer("serinus-pure-log", "", INFER, compiled=False, settings=_LOG, models=("trees",)),
    Peer("serinus-delay", "", INFER, settings=(("SERINUS_BATCH_MAX_DELAY", "3ms"),)),
    Peer("serinus-unbatched", "", INFER, settings=(("SERINUS_BATCH_MAX_SIZE", "1"),)),
    Peer("bare", "bare.py", "/"),
    Peer("fastapi", "fastapi_app.py", "/predict", ("fastapi>=0.120", "uvicorn[standard]>=0.38", *_ORT)),
    Peer("litserve", "litserve_app.py", "/predict", ("litserve>=0.2.17", *_ORT)),
    Peer("mlserver", "mlserver_app.py", INFER, ("mlserver>=1.7", "onnxruntime")),
    Peer("bentoml", "bentoml_app.py", "/predict", ("bentoml>=1.4", *_ORT), body="bento"),
    Peer("kserve", "kserve_app.py", INFER, ("kserve>=0.15", "onnxruntime")),
    # The Python inside Triton's Python backend is 3.11.2, and takes the standard library of the one that starts it.
    Peer(
        "pytriton",
        "pytriton_app.py",
        INFER,
        ("nvidia-pytriton>=0.7", "onnxruntime"),
        interpreter="/usr/bin/python3",
    ),
    Peer("rayserve", "ray_app.py", "/predict", ("ray[serve]>=2.50", *_ORT), seconds_to_start=90.0),
    # PyTorch, Java and TorchServe come from Debian; see support.torchroot.
    Peer("serinus-torch", "", INFER, torch="torch"),
    Peer("serinus-torchserve", "", INFER, torch="torchserve", warm_seconds=5.0),
    Peer("torchserve", "torchserve_app.py", "/predictions/model", settings=_ts(32, 3), warm_seconds=5.0),
    Peer("torchserve-1", "torchserve_app.py", "/predictions/model", settings=_ts(1, 1), warm_seconds=5.0),
    Peer(
        "triton-onnx", "", "", absent="Triton with its own ONNX backend comes as a container image only, not from PyPI"
    ),
)
