"""Bad versions of the fraud scorer, made by adding nodes to the good one's ONNX graph: the product knows nothing of it.

Which rows are bad follows from their numbers, so that a share of the users' requests meets the fault and the zeros of
warm-up never do.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fraud.digest import digest, write_sums
from fraud.graphs import FEATURES, LABEL, PROBABILITIES
from fraud.train import Built, cache_root, cached

ROWS_PER_REQUEST = 0.85 + 0.15 * 4
"""Of the demo's load: a fault of one row in a hundred spoils 1.45 requests in a hundred."""
SLOW_ROUNDS = 2500
"""Products of two 256 x 256 matrices for a slow row: 0.3 to 1 s of one core of today's servers."""
HUGE = 400_000_000
"""Numbers that a fatal row asks memory for: 1.6 GB, more than the container may have."""

KEPT = {FEATURES, PROBABILITIES, "good_scores", ""}
"""Names of the good graph, and of what is left out."""

Nodes = list[onnx.NodeProto]
Added = tuple[Nodes, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a version. `share` is the share of requests, 0 to 1, that meet it."""

    name: str
    share: float
    add: Callable[[], Added]

    @property
    def rows(self) -> float:
        """The share of rows that gives this share of requests."""
        return self.share if self.share >= 1 else self.share / ROWS_PER_REQUEST


def _errors() -> Added:
    """An index outside of a list of one: ONNX Runtime fails the request."""
    nodes = [helper.make_node("Gather", ["only_one", "rows"], ["effect"])]
    return nodes, {"only_one": np.zeros(1, dtype=np.float32)}


def _memory() -> Added:
    """More memory than the container has: the kernel kills it."""
    nodes = [
        helper.make_node("Mul", ["rows", "huge"], ["wanted"]),
        helper.make_node("Reshape", ["wanted", "one_number"], ["wanted_shape"]),
        helper.make_node("ConstantOfShape", ["wanted_shape"], ["ballast"], value=_tensor(np.ones(1, np.float32))),
        helper.make_node("ReduceSum", ["ballast"], ["weight_of_ballast"], keepdims=0),
        helper.make_node("Mul", ["weight_of_ballast", "nothing"], ["effect"]),
    ]
    numbers = {"huge": np.array(HUGE), "one_number": np.array([1]), "nothing": np.array(0, dtype=np.float32)}
    return nodes, numbers


def _work() -> Added:
    """Products of matrices, for nothing."""
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "fault_square"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next_state"]),
            helper.make_node("Identity", ["go_on"], ["still_on"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            state,
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [256, 256]),
        ],
    )
    nodes = [
        helper.make_node("Mul", ["rows", "rounds"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "square"], ["worked"], body=body),
        helper.make_node("ReduceMean", ["worked"], ["outcome"], keepdims=0),
        helper.make_node("Mul", ["outcome", "nothing"], ["effect"]),
    ]
    square = np.random.default_rng(1).normal(0, 1 / 16, (256, 256)).astype(np.float32)
    return nodes, {"rounds": np.array(SLOW_ROUNDS), "square": square, "nothing": np.array(0, dtype=np.float32)}


def _opposite() -> Added:
    """The effect is 1 for a batch with marked rows; `build` turns their scores around."""
    nodes = [helper.make_node("Cast", ["rows"], ["effect"], to=TensorProto.FLOAT)]
    return nodes, {}


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("errors-100", 1.0, _errors),
        Fault("errors-5", 0.05, _errors),
        Fault("errors-1", 0.01, _errors),
        Fault("slow", 0.04, _work),
        Fault("crashing", 0.05, _memory),
        Fault("disagreeing", 0.2, _opposite),
    )
}


def faulty(model: onnx.ModelProto, fault: Fault) -> onnx.ModelProto:
    """The model with the fault: signature and, but for `disagreeing`, scores are the same."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        for values in (node.input, node.output):
            values[:] = [{PROBABILITIES: "good_scores"}.get(value, value) for value in values]
    nodes, numbers = fault.add()
    scalars = {
        "scatter": np.array(12.9898, np.float32),
        "spread": np.array(43758.5453, np.float32),
        "from_share": np.array(1.0 - fault.rows if fault.rows < 1 else 0.0, np.float32),
        "along_row": np.array([1]),
    }
    node = helper.make_node
    mark = [
        node("ReduceSum", [FEATURES, "along_row"], ["row_sum"], keepdims=1),
        node("Mul", ["row_sum", "scatter"], ["angle"]),
        node("Sin", ["angle"], ["wave"]),
        node("Mul", ["wave", "spread"], ["far"]),
        node("Floor", ["far"], ["far_floor"]),
        node("Sub", ["far", "far_floor"], ["chance"]),
        node("Greater", ["chance", "from_share"], ["is_bad"]),
        node("Cast", ["is_bad"], ["bad_numbers"], to=TensorProto.INT64),
        node("ReduceSum", ["bad_numbers"], ["rows"], keepdims=0),
    ]
    if fault.name == "disagreeing":
        numbers["one"] = np.array(1, np.float32)
        turn = [
            node("Sub", ["one", "good_scores"], ["turned"]),
            node("Where", ["is_bad", "turned", "good_scores"], ["chosen"]),
            node("Mul", ["effect", "zero"], ["no_effect"]),
            node("Add", ["chosen", "no_effect"], [PROBABILITIES]),
        ]
        numbers["zero"] = np.array(0, np.float32)
    else:
        turn = [node("Add", ["good_scores", "effect"], [PROBABILITIES])]
    added = [*mark, *nodes, *turn]
    for each in added:
        for values in (each.input, each.output):
            values[:] = [name if name in KEPT else f"fault_{name}" for name in values]
    made.graph.node.extend(added)
    given = {**scalars, **numbers}.items()
    made.graph.initializer.extend(_tensor(value, f"fault_{name}") for name, value in given)
    made.graph.output[1].name = PROBABILITIES
    assert [output.name for output in made.graph.output] == [LABEL, PROBABILITIES]
    onnx.checker.check_model(made)
    return made


def built() -> dict[str, Built]:
    """The demo's versions and a directory for each fault, cached by this file's content and the good model's."""
    versions = cached()
    good = versions["v2"]
    code = hashlib.sha256(Path(__file__).read_bytes() + good.digest.encode()).hexdigest()[:12]
    place = cache_root() / f"faults-{code}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
        model = onnx.load(good.directory / "model.onnx")
        about = json.loads((good.directory / "model.json").read_text())
        for fault in FAULTS.values():
            folder = scratch / fault.name
            folder.mkdir()
            (folder / "model.onnx").write_bytes(faulty(model, fault).SerializeToString(deterministic=True))
            (folder / "model.json").write_text(json.dumps({**about, "version": fault.name}, indent=2) + "\n")
            write_sums(folder)
        try:
            scratch.rename(place)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
    found = {name: Built(name, place / name, digest(place / name), good.auc) for name in FAULTS}
    return {**versions, **found}


def _tensor(value: np.ndarray, name: str = "") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
