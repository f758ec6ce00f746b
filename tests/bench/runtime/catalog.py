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
    absent: str = ""
    """Why it cannot be measured at all."""


_ORT = ("onnxruntime>=1.26", "numpy>=2,<3")
PEERS = (
    Peer("serinus", "", "/v2/models/model/infer"),
    Peer("serinus-log", "", "/v2/models/model/infer", settings=(("SERINUS_PREDICTION_LOG", "LOGFILE"),)),
    Peer("bare", "bare.py", "/"),
    Peer("fastapi", "fastapi_app.py", "/predict", ("fastapi>=0.120", "uvicorn[standard]>=0.38", *_ORT)),
    Peer("litserve", "litserve_app.py", "/predict", ("litserve>=0.2.17", *_ORT)),
    Peer("mlserver", "mlserver_app.py", "/v2/models/model/infer", ("mlserver>=1.7", "onnxruntime")),
    Peer("bentoml", "bentoml_app.py", "/predict", ("bentoml>=1.4", *_ORT), body="bento"),
    Peer("kserve", "kserve_app.py", "/v2/models/model/infer", ("kserve>=0.15", "onnxruntime")),
    # The Python inside Triton's Python backend is 3.11.2, and takes the standard library of the one that starts it.
    Peer(
        "pytriton",
        "pytriton_app.py",
        "/v2/models/model/infer",
        ("nvidia-pytriton>=0.7", "onnxruntime"),
        interpreter="/usr/bin/python3",
    ),
    Peer("rayserve", "ray_app.py", "/predict", ("ray[serve]>=2.50", *_ORT), seconds_to_start=90.0),
    Peer(
        "torchserve",
        "",
        "",
        absent="needs torch, whose wheels on PyPI bring 5 GB of CUDA with them; upstream is archived",
    ),
    Peer(
        "triton-onnx", "", "", absent="Triton with its own ONNX backend comes as a container image only, not from PyPI"
    ),
)
