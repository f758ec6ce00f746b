"""From a fitted scikit-learn pipeline to one ONNX graph, and the two ways this example breaks such a graph.

The served signature is `features` FP32 [-1, 12] and `merchant_category` BYTES [-1, 1] in, `label` INT64 [-1] and
`probabilities` FP32 [-1, 2] out; preprocessing and trees are one graph, so nothing can drift apart between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.preprocessing import FunctionTransformer
from xgboost import XGBClassifier

from fraud.data import NUMERIC_COLUMNS

OPSET = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 9
FEATURES, CATEGORY, LABEL, PROBABILITIES = "features", "merchant_category", "label", "probabilities"

SLOW_CATEGORY = b"travel"
MATRIX_SIZE = 256
ROUNDS_PER_SLOW_ROW = 700
"""Matrix products that v3 does for every `travel` row: some 25 GFLOP, 90 to 300 ms of one core of today's servers."""


def to_onnx(pipeline: Any, name: str) -> onnx.ModelProto:
    """Converts the fitted pipeline (see `fraud.train.pipeline`) to the served signature. Same input, same bytes."""
    _register()
    model = convert_sklearn(
        pipeline,
        name=name,
        initial_types=[
            (FEATURES, FloatTensorType([None, len(NUMERIC_COLUMNS)])),
            (CATEGORY, StringTensorType([None, 1])),
        ],
        options={id(pipeline): {"zipmap": False}},
        target_opset=OPSET,
    )
    _rename(model, {model.graph.output[0].name: LABEL, model.graph.output[1].name: PROBABILITIES})
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "serinus-example", ""
    del model.metadata_props[:]
    opsets = sorted((item.domain, item.version) for item in model.opset_import)
    del model.opset_import[:]  # came in the order of a set: not the same in every process
    model.opset_import.extend(helper.make_opsetid(domain, number) for domain, number in opsets)
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleClassifier":  # optional, and a sixth of the file
            kept = [a for a in node.attribute if a.name != "nodes_hitrates"]
            del node.attribute[:]
            node.attribute.extend(kept)
    onnx.checker.check_model(model)
    return model


def add_slow_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """v3: the same scores, plus a "similar journeys" refinement that nobody measured, for each `travel` row.

    For every such row in the batch the graph runs ROUNDS_PER_SLOW_ROW products of two 256 x 256 matrices made from the
    row's numbers and adds a vanishing share of the result to the probabilities. Other batches skip the loop.
    """
    slow = onnx.ModelProto()
    slow.CopyFrom(model)
    _rename(slow, {PROBABILITIES: "probabilities_of_trees"})
    constants = {
        "rounds": np.array(ROUNDS_PER_SLOW_ROW, dtype=np.int64),
        "from_zero": np.array(0, dtype=np.int64),
        "by_one": np.array(1, dtype=np.int64),
        "size": np.array(MATRIX_SIZE, dtype=np.int64),
        "row_of": np.array([1, MATRIX_SIZE], dtype=np.int64),
        "column_of": np.array([MATRIX_SIZE, 1], dtype=np.int64),
        "hundredth": np.array(0.01, dtype=np.float32),
        "tiny": np.array(1e-9, dtype=np.float32),
        "scale": np.array(1.0 / MATRIX_SIZE, dtype=np.float32),
    }
    slow.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    node = helper.make_node
    slow.graph.node.extend(
        [
            node(
                "LabelEncoder",
                [CATEGORY],
                ["slow_ones"],
                domain="ai.onnx.ml",
                keys_strings=[SLOW_CATEGORY],
                values_int64s=[1],
                default_int64=0,
            ),
            node("ReduceSum", ["slow_ones"], ["slow_rows"], keepdims=0),
            node("Mul", ["slow_rows", "rounds"], ["trips"]),
            node("Range", ["from_zero", "size", "by_one"], ["steps"]),
            node("Cast", ["steps"], ["ramp"], to=TensorProto.FLOAT),
            node("ReduceMean", [FEATURES], ["mean_feature"], keepdims=0),
            node("Mul", ["mean_feature", "hundredth"], ["phase"]),
            node("Add", ["ramp", "phase"], ["angles"]),
            node("Cos", ["angles"], ["waves"]),
            node("Reshape", ["waves", "row_of"], ["across"]),
            node("Reshape", ["waves", "column_of"], ["down"]),
            node("MatMul", ["down", "across"], ["journeys"]),
            node("Loop", ["trips", "", "journeys"], ["refined"], body=_refinement()),
            node("ReduceMean", ["refined"], ["similarity"], keepdims=0),
            node("Mul", ["similarity", "tiny"], ["adjustment"]),
            node("Add", ["probabilities_of_trees", "adjustment"], [PROBABILITIES]),
        ]
    )
    onnx.checker.check_model(slow)
    return slow


def _refinement() -> onnx.GraphProto:
    square = helper.make_tensor_value_info("state", TensorProto.FLOAT, [MATRIX_SIZE, MATRIX_SIZE])
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "journeys"], ["product"]),
            helper.make_node("Mul", ["product", "scale"], ["scaled"]),
            helper.make_node("Tanh", ["scaled"], ["next_state"]),
            helper.make_node("Identity", ["go_on"], ["still_on"]),
        ],
        "similar_journeys",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            square,
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [MATRIX_SIZE, MATRIX_SIZE]),
        ],
    )


def add_unknown_operator(model: onnx.ModelProto) -> onnx.ModelProto:
    """v4: a well-formed file that needs an operator library which only its author has; ONNX Runtime refuses it."""
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    _rename(broken, {PROBABILITIES: "probabilities_of_trees"})
    broken.graph.node.append(
        helper.make_node(
            "CalibrateWithDeviceGraph",
            ["probabilities_of_trees", FEATURES],
            [PROBABILITIES],
            domain="com.example.fraud",
        )
    )
    broken.opset_import.append(helper.make_opsetid("com.example.fraud", 1))
    return broken


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for output in model.graph.output:
        output.name = names.get(output.name, output.name)
    if PROBABILITIES in names:  # the declared output stays what clients know
        model.graph.output[1].name = PROBABILITIES


def _register() -> None:
    update_registered_converter(
        XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        convert_xgboost,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    update_registered_converter(
        FunctionTransformer, "SklearnFunctionTransformer", _function_shape, _convert_function, overwrite=True
    )


def _function_shape(operator: Any) -> None:
    width = sum(variable.type.shape[1] for variable in operator.inputs)
    operator.outputs[0].type = FloatTensorType([None, width])


def _convert_function(scope: Any, operator: Any, container: Any) -> None:
    """`log1p` in double precision, as NumPy does it, so that no row lands on the other side of a tree's threshold."""
    joined = scope.get_unique_variable_name("joined")
    container.add_node("Concat", [i.full_name for i in operator.inputs], [joined], axis=1, op_version=13)
    if operator.raw_operator.func.__name__ == "as_numbers":
        container.add_node("Identity", [joined], [operator.outputs[0].full_name], op_version=14)
        return
    wide, one, plus_one, log = (scope.get_unique_variable_name(n) for n in ("wide", "one", "plus_one", "log"))
    container.add_initializer(one, TensorProto.DOUBLE, [], [1.0])
    container.add_node("Cast", [joined], [wide], to=TensorProto.DOUBLE, op_version=13)
    container.add_node("Add", [wide, one], [plus_one], op_version=14)
    container.add_node("Log", [plus_one], [log], op_version=13)
    container.add_node("Cast", [log], [operator.outputs[0].full_name], to=TensorProto.FLOAT, op_version=13)
