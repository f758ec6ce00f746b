"""The worker's loop: load what the front says, then one batch after another until the front is gone."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from serinus_runtime.torchworker import bodies, frames, handlers, models


def main(descriptor: int) -> None:
    """Serves the socket `descriptor` until it is closed."""
    sock = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    model: Any = None
    try:
        while True:
            header, arrays = frames.receive(sock)
            try:
                if header["do"] == "load":
                    model = _load(header)
                    reply = {"kind": model.kind, "takes": model.takes, "signature": model.signature}
                    frames.send(sock, {"ok": True, "runtime": f"torch-{torch.__version__}", **reply})
                else:
                    names = header["outputs"]
                    found = model.run(list(arrays.values()), names, header.get("bfloat16", ()))
                    frames.send(sock, {"ok": True}, dict(zip(names, found)))  # noqa: B905 - lengths are equal
            except (frames.ClosedError, BrokenPipeError):
                raise
            except Exception as error:
                if not isinstance(error, models.RefusedError):
                    traceback.print_exc()
                text = str(error).strip().splitlines()
                kind = "" if isinstance(error, models.RefusedError) else f"{type(error).__name__}: "
                frames.send(
                    sock,
                    {
                        "ok": False,
                        "error": kind + (text[-1] if text else "no message")[:500],
                        "code": getattr(model, "kind", "") == "handler" and not isinstance(error, bodies.AnswerError),
                    },
                )
    except (frames.ClosedError, BrokenPipeError, ConnectionResetError):
        sys.stderr.flush()
        os._exit(0)


def _load(told: dict[str, Any]) -> Any:
    torch.set_num_threads(told["threads"])
    torch.set_num_interop_threads(1)
    directory = Path(told["directory"])
    device = told["device"]
    if told["handler"] is None:
        return models.load(directory / told["file"], device, allow_pickle=told["allow_pickle"])
    return handlers.load(
        directory,
        told["handler"],
        name=told["name"],
        manifest=told["manifest"],
        batch_size=told["batch_size"],
        gpu=int(device.partition(":")[2] or 0) if device.startswith("cuda") else None,
        style=told["style"],
        inputs=told["inputs"],
        outputs=told["outputs"],
    )
