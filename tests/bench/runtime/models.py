"""The models: gradient-boosted trees, a network heavy enough that batching pays, and one that looks at images.

The first two take `x` FP32 [rows, 30] and give `y` FP32 [rows, 1 or 2]; the third takes `x` FP32 [rows, 3, 224, 224].
They are made from fixed seeds, without training: what a tree or a matrix costs does not depend on what it has learnt.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FEATURES = 30
TREES = 200
DEPTH = 6
HIDDEN = (2048, 2048, 2048)
IMAGE = (3, 224, 224)
_CHANNELS = (16, 32, 64, 128)


def make(name: str, directory: Path) -> Path:
    """`model.onnx` of `name` ("trees", "mlp" or "image") in `directory`; nothing is done when it is there."""
    path = directory / "model.onnx"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        graph = {"trees": _trees, "mlp": _mlp, "image": _image}[name]()
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        partial = path.with_suffix(".part")
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(partial))
        partial.rename(path)
    return path


def rows(count: int, seed: int = 7) -> list[list[float]]:
    """Inputs with four decimals, as a client would send them."""
    made: list[list[float]] = np.random.default_rng(seed).normal(size=(count, FEATURES)).round(4).tolist()
    return made


def images(count: int, seed: int = 7) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Images of noise."""
    return np.random.default_rng(seed).random((count, *IMAGE), dtype=np.float32)


def _graph(nodes: list[Any], width: int, constants: list[Any], inputs: tuple[int, ...] = (FEATURES,)) -> Any:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, width])
    return helper.make_graph(nodes, "bench", [x], [y], constants)


def _trees() -> Any:
    random = np.random.default_rng(1)
    inner = (1 << DEPTH) - 1
    nodes = (1 << (DEPTH + 1)) - 1
    ids = np.tile(np.arange(nodes), TREES)
    trees = np.repeat(np.arange(TREES), nodes)
    leaf = ids >= inner
    leaves = np.flatnonzero(leaf)
    regressor = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=trees.tolist(),
        nodes_nodeids=ids.tolist(),
        nodes_featureids=np.where(leaf, 0, random.integers(0, FEATURES, ids.size)).tolist(),
        nodes_values=np.where(leaf, 0.0, random.normal(size=ids.size)).astype(np.float32).tolist(),
        nodes_modes=["LEAF" if end else "BRANCH_LT" for end in leaf],
        nodes_truenodeids=np.where(leaf, 0, 2 * ids + 1).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, 2 * ids + 2).tolist(),
        nodes_missing_value_tracks_true=[0] * ids.size,
        nodes_hitrates=[1.0] * ids.size,
        target_treeids=trees[leaves].tolist(),
        target_nodeids=ids[leaves].tolist(),
        target_ids=[0] * leaves.size,
        target_weights=random.normal(0, 0.05, leaves.size).astype(np.float32).tolist(),
    )
    return _graph([regressor, helper.make_node("Sigmoid", ["score"], ["y"])], 1, [])


def _mlp() -> Any:
    random = np.random.default_rng(2)
    sizes = (FEATURES, *HIDDEN, 2)
    nodes: list[Any] = []
    constants: list[Any] = []
    last = "x"
    for index, (wide, high) in enumerate(pairwise(sizes)):
        weights = random.normal(0, (2 / wide) ** 0.5, (wide, high)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(weights, f"w{index}"))
        constants.append(onnx.numpy_helper.from_array(np.zeros(high, np.float32), f"b{index}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [f"h{index}"]))
        last = f"h{index}"
        if high != sizes[-1]:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
            last = f"r{index}"
    nodes.append(helper.make_node("Softmax", [last], ["y"], axis=1))
    return _graph(nodes, 2, constants)


def _image() -> Any:
    """Four convolutions with a stride of two, the mean of what is left, and ten classes: about 60 million products."""
    random = np.random.default_rng(3)
    nodes: list[Any] = []
    constants: list[Any] = []
    last, deep = "x", IMAGE[0]
    for index, channels in enumerate(_CHANNELS):
        weights = random.normal(0, (2 / (9 * deep)) ** 0.5, (channels, deep, 3, 3)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(weights, f"w{index}"))
        convolution = helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], strides=[2, 2], pads=[1, 1, 1, 1])
        nodes += [convolution, helper.make_node("Relu", [f"c{index}"], [f"r{index}"])]
        last, deep = f"r{index}", channels
    weights = random.normal(0, 0.1, (deep, 10)).astype(np.float32)
    constants.append(onnx.numpy_helper.from_array(weights, "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=1),
    ]
    return _graph(nodes, 10, constants, IMAGE)
