"""The network of a policy as an ONNX model, for routers that are not in Python."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agents.layout import MASKED_SCORE, Layout
from hardware_profiles.files import replacing

OPSET = 17
INPUTS = ("request", "global", "choices", "action_mask")


def write_onnx(path: Path, weights: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Write the forward pass of an actor for one observation.

    Inputs, float32: "request" (R,), "global" (G,), "choices" (C, F) and "action_mask" (C,), as in the environment's
    observation; C may vary. Output: "scores" (C,); the row with the highest score is the choice. The metadata has the
    names of the features in order.

    Args:
        path: file to write or replace.
        weights: parameters of an actor by name, as in a policy file.
        layout: layout of its observations.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {name: value.astype(np.float32) for name, value in weights.items() if name.split(".")[0] in _LAYERS}
    for layer in ("choice", "summary", "context"):  # layers of 2 x - 1 become layers of x
        weight = constants.pop(f"{layer}.weight")
        constants[f"{layer}.weight"] = 2.0 * weight
        constants[f"{layer}.shift"] = constants.pop(f"{layer}.bias", np.float32(0.0)) - weight.sum(axis=1)
    matrices = {f"{name}.T": value.T for name, value in constants.items() if name.endswith(".weight")}
    shifts = {name: value for name, value in constants.items() if not name.endswith(".weight")}
    numbers = {
        "zero": np.float32(0.0),
        "one": np.float32(1.0),
        "low": np.float32(-1.0),
        "masked": np.float32(MASKED_SCORE),
        "rows": np.array([0], dtype=np.int64),
        "columns": np.array([1], dtype=np.int64),
    }

    def clip(value: str, result: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Clip", [value, "low", "one"], [result])]

    def times(name: str, value: str, result: str) -> list[onnx.NodeProto]:
        return [helper.make_node("MatMul", [value, f"{name}.weight.T"], [result])]

    def add(result: str, first: str, second: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Add", [first, second], [result])]

    nodes = [
        # A masked row of zeros is padding and does not count in the mean; see `placement_network.summarize`.
        helper.make_node("Greater", ["action_mask", "zero"], ["allowed"]),
        helper.make_node("ReduceMax", ["choices"], ["largest"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["largest", "zero"], ["not_empty"]),
        helper.make_node("Or", ["allowed", "not_empty"], ["present"]),
        helper.make_node("Cast", ["present"], ["present_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["present_f", "rows"], ["count"], keepdims=0),
        helper.make_node("Max", ["count", "one"], ["count_1"]),
        helper.make_node("ReduceSum", ["choices", "rows"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "count_1"], ["mean"]),
        helper.make_node("ReduceMax", ["choices"], ["max"], axes=[0], keepdims=0),
        helper.make_node("Concat", ["request", "global", "mean", "max"], ["summed"], axis=0),
        *times("context", "summed", "context_0"),
        *add("context_1", "context_0", "context.shift"),
        *clip("context_1", "context_2"),
        *times("gate", "context_2", "gate_0"),
        *times("summary", "summed", "summary_0"),
        *add("summary_1", "summary_0", "summary.shift"),
        *add("of_all_0", "summary_1", "gate_0"),
        *add("of_all", "of_all_0", "choice.shift"),
        *times("choice", "choices", "row_0"),
        *add("row_1", "row_0", "of_all"),
        *clip("row_1", "row_2"),
        *times("second", "row_2", "hidden_0"),
        *add("hidden_1", "hidden_0", "second.bias"),
        *clip("hidden_1", "hidden_2"),
        *times("score", "hidden_2", "score_0"),
        *times("skip", "choices", "skip_0"),
        *add("column", "score_0", "skip_0"),
        helper.make_node("Squeeze", ["column", "columns"], ["raw"]),
        helper.make_node("Where", ["allowed", "raw", "masked"], ["scores"]),
    ]
    sizes = {"request": len(layout.request), "global": len(layout.global_)}
    shapes: dict[str, list[int | str]] = {
        **{name: [size] for name, size in sizes.items()},
        "choices": ["C", len(layout.choices)],
        "action_mask": ["C"],
    }
    graph = helper.make_graph(
        nodes,
        "placement",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in INPUTS],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["C"])],
        [
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in {**matrices, **shifts, **numbers}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="prefill-placement")
    model.ir_version = 8
    features = {"request": layout.request, "global": layout.global_, "choices": layout.choices}
    known = {name: " ".join(of) for name, of in features.items()}
    helper.set_model_props(model, known | {"choice_set": layout.choice_set, "layout": str(layout.version)})
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


_LAYERS = ("choice", "summary", "context", "gate", "second", "score", "skip")
