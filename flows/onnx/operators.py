"""PyTorch's operations as ONNX nodes: those that the densities of flows consist of."""

from flows.onnx.elementwise import ELEMENTWISE
from flows.onnx.graph import Graph
from flows.onnx.indexing import INDEXING
from flows.onnx.operands import Translation
from flows.onnx.recording import OnnxError, Operation
from flows.onnx.reductions import REDUCTIONS
from flows.onnx.shapes import SHAPES

_TRANSLATIONS: dict[str, Translation] = ELEMENTWISE | REDUCTIONS | SHAPES | INDEXING


def translate(graph: Graph, operation: Operation) -> None:
    """Add the nodes of an operation to a graph.

    Raises:
        OnnxError: The operation has no translation.
    """
    translation = _TRANSLATIONS.get(operation.name.split(".")[0])
    if translation is None:
        raise OnnxError(f"its operation {operation.name} has no form in ONNX")
    made = translation(graph, operation)
    names = [made] if isinstance(made, str) else made
    for variable, name in zip(operation.outputs, names, strict=False):
        graph.bind(variable, name)
