"""Model files as something that takes arrays and gives arrays: TorchScript, exported programs, pickles if allowed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serinus_runtime.torchworker.frames import DTYPES

Spec = dict[str, Any]
"""Name, datatype and shape (-1: any size) of an input or output, as model.json writes them."""
_DATATYPES = {
    "torch.bool": "BOOL",
    "torch.uint8": "UINT8",
    **{f"torch.int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    "torch.float16": "FP16",
    "torch.bfloat16": "BF16",
    "torch.float32": "FP32",
    "torch.float64": "FP64",
}
_SCRIPT_HINT = "save it with torch.jit.script(model).save('model.pt') or torch.export.save(exported, 'model.pt2')"


class RefusedError(ValueError):
    """The model cannot, or must not, be loaded; the text says what to do instead."""


class TorchModel:
    """A network. Inputs go in by position, in the order in which model.json declares them."""

    def __init__(self, call: Any, kind: str, takes: int | None, signature: Mapping[str, list[Spec]] | None) -> None:
        self._call = call
        self.kind = kind
        self.takes = takes
        """How many inputs it takes, where the file says so."""
        self.signature = signature
        """What the file itself declares; only exported programs do."""

    def run(self, inputs: Sequence[Any], names: Sequence[str], halves: Sequence[int] = ()) -> list[Any]:
        """One array per name in `names`, the declared outputs. Raises ValueError where they do not fit.

        `halves`: which of the inputs the network takes in bfloat16, for which numpy has no type.
        """
        with torch.inference_mode():
            tensors = [_tensor(array) for array in inputs]
            for at in halves:
                tensors[at] = tensors[at].to(torch.bfloat16)
            given = self._call(*tensors)
        if isinstance(given, Mapping):
            absent = [name for name in names if name not in given]
            if absent:
                raise ValueError(f"the model gives {', '.join(map(str, given))}; model.json declares {absent[0]!r}")
            tensors = [given[name] for name in names]
        else:
            tensors = list(given) if isinstance(given, (tuple, list)) else [given]
        if len(tensors) != len(names):
            raise ValueError(f"the model gives {len(tensors)} outputs; model.json declares {len(names)}")
        return [_array(tensor, name) for tensor, name in zip(tensors, names)]  # noqa: B905 - lengths are equal


def load(path: Path, device: str, *, allow_pickle: bool) -> TorchModel:
    """Loads `model.pt2` (an exported program) or `model.pt` (TorchScript; a pickled module only if allowed).

    Raises RefusedError.
    """
    if path.suffix == ".pt2":
        return _exported(path, device)
    names = _members(path)
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        try:
            script = torch.jit.load(str(path), map_location=device)
        except RuntimeError as error:
            raise RefusedError(f"{path.name} is damaged TorchScript: {_line(error)}") from None
        script.eval()
        forward = getattr(script, "forward", None)
        schema = getattr(forward, "schema", None)
        takes = len(schema.arguments) - 1 if schema is not None else None
        return TorchModel(script, "torchscript", takes, None)
    if any(name.endswith("serialized_exported_program.json") for name in names):
        raise RefusedError(f"{path.name} is an exported program: call it model.pt2")
    return _pickled(path, device, allow_pickle=allow_pickle)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _pickled(path: Path, device: str, *, allow_pickle: bool) -> TorchModel:
    if not allow_pickle:
        raise RefusedError(
            f"{path.name} is a pickle (a whole module or a state dict), and loading it runs whatever code it holds: "
            f"{_SCRIPT_HINT}; SERINUS_ALLOW_PICKLE=true loads it all the same"
        )
    loaded = torch.load(str(path), map_location=device, weights_only=False)
    if not isinstance(loaded, torch.nn.Module):
        what = "a state dict" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise RefusedError(f"{path.name} holds {what}: weights without a network; {_SCRIPT_HINT}")
    loaded.eval()
    return TorchModel(loaded, "pickle", None, None)


def _exported(path: Path, device: str) -> TorchModel:
    if not hasattr(torch, "export"):
        raise RefusedError(
            f"{path.name} needs torch 2.1 or later; this is {torch.__version__}: save TorchScript instead"
        )
    try:
        program = torch.export.load(str(path))
    except Exception as error:
        raise RefusedError(f"{path.name} is not an exported program that torch {torch.__version__} reads: "
                           f"{_line(error)}; export it again with this version") from None  # fmt: skip
    module = program.module()
    if device != "cpu":
        module = module.to(device)
    try:
        signature = _declared(program)
    except (AttributeError, KeyError, TypeError, IndexError):
        signature = None
    return TorchModel(module, "export", len(program.graph_signature.user_inputs), signature)


def _declared(program: Any) -> dict[str, list[Spec]] | None:
    nodes = {node.name: node for node in program.graph.nodes}
    outer = program.module_call_graph[0].signature
    inputs = list(program.graph_signature.user_inputs)
    names = list(getattr(outer, "forward_arg_names", None) or inputs)
    outputs = list(program.graph_signature.user_outputs)
    found: dict[str, list[Spec]] = {"inputs": [], "outputs": []}
    told = names if len(names) == len(inputs) else inputs
    for key, label, node in (
        *(("inputs", name, node) for name, node in zip(told, inputs)),  # noqa: B905 - lengths are equal
        *(("outputs", "output" if len(outputs) == 1 else f"output_{at}", node) for at, node in enumerate(outputs)),
    ):
        value = nodes[node].meta["val"]
        datatype = _DATATYPES.get(str(value.dtype))
        if datatype is None:
            return None
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        found[key].append({"name": label, "datatype": datatype, "shape": shape})
    return found


def _tensor(array: Any) -> Any:
    if array.dtype == object:
        raise ValueError("a network takes no text (BYTES): put the preprocessing into a handler")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _array(tensor: Any, name: str) -> Any:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"output {name!r} is a {type(tensor).__name__}, not a tensor")
    made = tensor.detach().cpu()
    if str(made.dtype) == "torch.bfloat16":
        made = made.float()
    array = made.numpy()
    if array.dtype not in DTYPES.values():
        raise ValueError(f"output {name!r} has the dtype {array.dtype}, which no protocol carries")
    return np.ascontiguousarray(array)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300]
