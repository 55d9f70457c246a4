"""A flow's log density as an ONNX model.

`torch.onnx` has no form of searches among sorted numbers and of triangular systems, which rows with categories and
Gaussians need, and takes 6 to 36 s where this takes less than one.
"""

from collections.abc import Mapping

import torch
from onnx import TensorProto, helper
from torch import nn

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.compose import Inverted
from flows.flow import Flow, complete_rows
from flows.onnx.arithmetic import ARITHMETIC, Translation
from flows.onnx.graph import Call, Graph
from flows.onnx.indexing import INDEXING
from flows.onnx.recording import OnnxError, Operation, Recording, record

OPSET = 18
"""Version of the operators, of ONNX 1.13."""

# The version of the file format that belongs to it, which older runtimes read too.
_IR_VERSION = 8
_ROWS, _CONTEXT, _LOG_PROB = "rows", "context", "log_prob"
_TRANSLATIONS: dict[str, Translation] = ARITHMETIC | INDEXING


def onnx_model(flow: Flow, metadata: Mapping[str, str]) -> bytes:
    """Return the log density of a flow as a serialised ONNX model.

    Its inputs are `rows`, float64 of shape (batch, dim) in the data's own units, and `context` of
    shape (batch, context_dim) if there is one; its output `log_prob`, float64 of shape (batch), is in
    nats. Preprocessing is computed in float64, the layers in the precision of their weights.

    Raises:
        OnnxError: The density is no fixed sequence of operations that ONNX has.
    """
    recording = _record(flow)
    names = [_ROWS, _CONTEXT][: len(recording.inputs)]
    graph = Graph(_ROWS)
    for variable, name in zip(recording.inputs, names, strict=True):
        graph.bind(variable, name)
    for operation in recording.operations:
        _translate(graph, operation)
    result = graph.value(recording.result).name
    graph.nodes.append(helper.make_node("Identity", [result], [_LOG_PROB]))
    dims = {_ROWS: flow.dim, _CONTEXT: flow.context_dim}
    made = helper.make_graph(
        graph.nodes,
        "log_prob",
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["batch", dims[n]]) for n in names],
        [helper.make_tensor_value_info(_LOG_PROB, TensorProto.DOUBLE, ["batch"])],
        graph.constants,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="densityd",
    )
    helper.set_model_props(model, dict(metadata))
    return bytes(model.SerializeToString())


def _record(flow: Flow) -> Recording:
    def log_prob(rows: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        model, outer = flow.preprocessing.inverse(rows)
        features = flow.features(context, len(rows))
        score = flow.transform.log_density(model.to(flow.dtype), features).double() + outer
        # The rule of `flows.flow.without_nan`.
        complete = complete_rows(flow.preprocessing, flow.context, rows, context, space="data")
        return torch.where(score.isnan() & complete, -torch.inf, score)

    dims = [flow.dim, flow.context_dim] if flow.context_dim else [flow.dim]
    if any(map(_is_sequential, flow.modules())):
        raise OnnxError("its density takes a pass for each feature")
    return record(log_prob, dims)


def _is_sequential(layer: nn.Module) -> bool:
    return isinstance(layer, Inverted) and isinstance(layer.layer, Autoregressive)


def _translate(graph: Graph, operation: Operation) -> None:
    """Add the nodes of an operation to a graph.

    Raises:
        OnnxError: The operation has no translation.
    """
    translation = _TRANSLATIONS.get(operation.name.split(".")[0])
    if translation is None:
        raise OnnxError(f"its operation {operation.name} has no form in ONNX")
    made = translation(Call(graph, operation))
    values = made if isinstance(made, list) else [made]
    for variable, value in zip(operation.outputs, values, strict=False):
        graph.bind(variable, value.name)
