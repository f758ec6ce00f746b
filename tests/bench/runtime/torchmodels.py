"""The two models as PyTorch's servers take them: an archive with a handler, and TorchScript where there is a network.

The trees run with ONNX Runtime inside the handler, as one would serve them from TorchServe; the network is TorchScript
with the same weights.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bench.runtime import models
from support import torchroot

PEERS = Path(__file__).parent / "peers"
_ORT = ("onnxruntime==1.26.0", "flatbuffers", "protobuf")
_SIGNATURE_X = {"name": "x", "datatype": "FP32", "shape": [-1, models.FEATURES]}


def make(model: Path, kind: str) -> Path:
    """The model directory for `model` (an ONNX file of `models`): `kind` is "torch" or "torchserve"."""
    root = torchroot.ensure()
    name = model.parent.name
    folder = model.parent.parent / f"{name}-{kind}"
    if not (folder / "model.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        width = 1 if name == "trees" else 2
        if name == "mlp":
            network = folder / "model.pt"
            _torchscript(root, model, network)
            if kind == "torchserve":
                _archive(folder / "model.mar", {"model.pt": network.read_bytes()})
                network.unlink()
        else:
            _archive(
                folder / "model.mar", {"model.onnx": model.read_bytes(), "packages": str(_onnxruntime(root)).encode()}
            )
        signature = {
            "inputs": [_SIGNATURE_X],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, width]}],
        }
        (folder / "model.json").write_text(json.dumps({"signature": signature}))
    return folder


def settings(model: Path, kind: str) -> dict[str, str]:
    """The runtime's environment for `make(model, kind)`."""
    root = torchroot.ensure()
    return {
        "SERINUS_ENGINE": kind,
        "SERINUS_MODEL_DIR": str(make(model, kind)),
        "SERINUS_TORCH_PYTHON": str(root.python),
        "SERINUS_TORCHSERVE_HOME": str(root.torchserve),
        "SERINUS_JAVA": str(root.java),
        "SERINUS_ALLOW_PYTHON": "true",
    }


def _torchscript(root: torchroot.TorchRoot, model: Path, target: Path) -> None:
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(str(model)).graph.initializer}
    arrays = target.with_suffix(".npz")
    np.savez(arrays, **weights)
    subprocess.run([root.python, PEERS / "torch_network.py", arrays, target], check=True, timeout=300)
    arrays.unlink()


def _archive(target: Path, files: dict[str, bytes]) -> None:
    manifest = {
        "runtime": "python",
        "model": {"modelName": "model", "handler": "handler.py", "modelVersion": "1.0"},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", (PEERS / "torchserve_handler.py").read_text())
        for name, content in files.items():
            archive.writestr(name, content)


def _onnxruntime(root: torchroot.TorchRoot) -> Path:
    """ONNX Runtime for the root's Python, in a folder of its own."""
    target = root.folder.with_name(f"{root.folder.name}-onnxruntime")
    if not (target / ".ready").exists():
        print("installing onnxruntime for torchserve's handler", flush=True)
        shutil.rmtree(target, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--python-version", "3.13", "--only-binary=:all:", "--target", str(target), *_ORT]
        subprocess.run(command, check=True, timeout=900)
        (target / ".ready").touch()
    return target
