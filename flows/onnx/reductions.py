"""ONNX nodes of matrix products and of operations along axes: sums, norms, softmax."""

import torch
from torch import Tensor

from flows.onnx.graph import Graph
from flows.onnx.operands import Translation, axes_of, axis_of, dtype_of
from flows.onnx.recording import OnnxError, Operation


def _addmm(graph: Graph, operation: Operation) -> str:
    args = operation.args
    names = [graph.value(args[name]) for name in ("mat1", "mat2", "self")]
    alpha, beta = float(args.get("alpha", 1)), float(args.get("beta", 1))
    return graph.node("Gemm", *names, dtype=dtype_of(operation), alpha=alpha, beta=beta)


def _matmul(graph: Graph, operation: Operation) -> str:
    names = graph.value(operation.args["self"]), graph.value(operation.args["mat2"])
    return graph.node("MatMul", *names, dtype=dtype_of(operation))


def _solved(graph: Graph, operation: Operation) -> str:
    """Add a product with the inverse of a constant triangle, which is computed in float64."""
    args = operation.args
    triangle = args["self"]
    if not isinstance(triangle, Tensor) or not args.get("left", True):
        raise OnnxError("a triangular system of the rows has no form in ONNX")
    exact = triangle.double()
    identity = torch.eye(len(exact), dtype=torch.float64)
    inverse = torch.linalg.solve_triangular(
        exact, identity, upper=args["upper"], unitriangular=args.get("unitriangular", False)
    )
    names = graph.constant(inverse.to(triangle.dtype)), graph.value(args["B"])
    return graph.node("MatMul", *names, dtype=dtype_of(operation))


def _reduced(graph: Graph, operation: Operation, kind: str, name: str, dtype: torch.dtype) -> str:
    keep = int(bool(operation.args.get("keepdim", False)))
    return graph.node(kind, name, graph.integers(axes_of(operation)), dtype=dtype, keepdims=keep)


def _reduction(kind: str) -> Translation:
    def add(graph: Graph, operation: Operation) -> str:
        dtype = dtype_of(operation)
        return _reduced(graph, operation, kind, graph.value(operation.args["self"], dtype), dtype)

    return add


def _truth(kind: str) -> Translation:
    """Return the translation of `all` (ReduceMin) and `any` (ReduceMax)."""

    def add(graph: Graph, operation: Operation) -> str:
        name = graph.cast(graph.value(operation.args["self"], torch.bool), torch.int32)
        return graph.cast(_reduced(graph, operation, kind, name, torch.int32), torch.bool)

    return add


def _logsumexp(graph: Graph, operation: Operation) -> str:
    """Add m + log sum e^(x - m) with the largest m, or 0 where that is infinite."""
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    axes = graph.integers(axes_of(operation))
    most = graph.node("ReduceMax", name, axes, dtype=dtype, keepdims=1)
    infinite = graph.node("IsInf", most, dtype=torch.bool)
    most = graph.node("Where", infinite, graph.number(0, dtype), most, dtype=dtype)
    shifted = graph.node("Exp", graph.node("Sub", name, most, dtype=dtype), dtype=dtype)
    total = graph.node("ReduceSum", shifted, axes, dtype=dtype, keepdims=1)
    result = graph.node("Add", graph.node("Log", total, dtype=dtype), most, dtype=dtype)
    if operation.args.get("keepdim", False):
        return result
    return graph.node("Squeeze", result, axes, dtype=dtype)


def _norm(graph: Graph, operation: Operation) -> str:
    if operation.args.get("ord", 2) != 2:
        raise OnnxError("its norm has no form in ONNX")
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    square = graph.node("Mul", name, name, dtype=dtype)
    return graph.node("Sqrt", _reduced(graph, operation, "ReduceSum", square, dtype), dtype=dtype)


def _along(kind: str) -> Translation:
    """Return the translation of an operation along an axis that ONNX has as an attribute."""

    def add(graph: Graph, operation: Operation) -> str:
        dtype = dtype_of(operation)
        name = graph.value(operation.args["self"], dtype)
        return graph.node(kind, name, dtype=dtype, axis=axis_of(operation))

    return add


def _cumsum(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    axis = graph.number(axis_of(operation), torch.int64)
    return graph.node("CumSum", name, axis, dtype=dtype)


REDUCTIONS: dict[str, Translation] = {
    "_log_softmax": _along("LogSoftmax"),
    "_softmax": _along("Softmax"),
    "addmm": _addmm,
    "all": _truth("ReduceMin"),
    "amax": _reduction("ReduceMax"),
    "amin": _reduction("ReduceMin"),
    "any": _truth("ReduceMax"),
    "bmm": _matmul,
    "cumsum": _cumsum,
    "linalg_solve_triangular": _solved,
    "linalg_vector_norm": _norm,
    "logsumexp": _logsumexp,
    "mm": _matmul,
    "sum": _reduction("ReduceSum"),
}
