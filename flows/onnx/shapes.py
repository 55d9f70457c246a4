"""ONNX nodes of operations that arrange tensors: views, transposes, joins, padding."""

from flows.onnx.graph import Graph
from flows.onnx.operands import Translation, axis_of, dtype_of, rank_of
from flows.onnx.recording import Operation


def _reshaped(graph: Graph, operation: Operation) -> str:
    name = graph.value(operation.args["self"])
    sizes = operation.outputs[0].shape
    shape = graph.shape(sizes)
    return graph.node("Reshape", name, shape, dtype=dtype_of(operation), allowzero=1)


def _expanded(graph: Graph, operation: Operation) -> str:
    name = graph.value(operation.args["self"], dtype_of(operation))
    sizes = graph.shape(operation.outputs[0].shape)
    return graph.node("Expand", name, sizes, dtype=dtype_of(operation))


def _permuted(graph: Graph, operation: Operation) -> str:
    order = [axis % len(operation.args["dims"]) for axis in operation.args["dims"]]
    name = graph.value(operation.args["self"])
    return graph.node("Transpose", name, dtype=dtype_of(operation), perm=order)


def _transposed(graph: Graph, operation: Operation) -> str:
    order = list(range(rank_of(operation.args["self"])))
    one = axis_of(operation, "dim0") if "dim0" in operation.args else 0
    other = axis_of(operation, "dim1") if "dim1" in operation.args else len(order) - 1
    order[one], order[other] = order[other], order[one]
    name = graph.value(operation.args["self"])
    return graph.node("Transpose", name, dtype=dtype_of(operation), perm=order)


def _same(graph: Graph, operation: Operation) -> str:
    """Add nothing but a change of type."""
    return graph.value(operation.args["self"], dtype_of(operation))


def _copied(graph: Graph, operation: Operation) -> str:
    """Add the second tensor in the shape and type of the first."""
    name = graph.value(operation.args["src"], dtype_of(operation))
    sizes = graph.shape(operation.outputs[0].shape)
    return graph.node("Expand", name, sizes, dtype=dtype_of(operation))


def _of_one_number(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    value = graph.value(operation.args.get("fill_value", 0), dtype)
    sizes = graph.shape(operation.outputs[0].shape)
    return graph.node("Expand", value, sizes, dtype=dtype)


def _joined(graph: Graph, operation: Operation) -> str:
    dtype, axis = dtype_of(operation), operation.args.get("dim", 0)
    parts = operation.args["tensors"]
    names = [graph.value(part, dtype) for part in parts]
    rank = len(operation.outputs[0].shape)
    return graph.node("Concat", *names, dtype=dtype, axis=axis % rank)


def _stacked(graph: Graph, operation: Operation) -> str:
    dtype, axis = dtype_of(operation), operation.args.get("dim", 0)
    place = axis % len(operation.outputs[0].shape)
    names = [
        graph.node("Unsqueeze", graph.value(part, dtype), graph.integers([place]), dtype=dtype)
        for part in operation.args["tensors"]
    ]
    return graph.node("Concat", *names, dtype=dtype, axis=place)


def _padded(graph: Graph, operation: Operation) -> str:
    dtype, pads = dtype_of(operation), operation.args["pad"]
    rank = rank_of(operation.args["self"])
    before, after = [0] * rank, [0] * rank
    for place in range(len(pads) // 2):
        before[rank - 1 - place], after[rank - 1 - place] = pads[2 * place : 2 * place + 2]
    name = graph.value(operation.args["self"], dtype)
    value = graph.number(operation.args.get("value") or 0, dtype)
    return graph.node("Pad", name, graph.integers([*before, *after]), value, dtype=dtype)


SHAPES: dict[str, Translation] = {
    "_to_copy": _same,
    "_unsafe_view": _reshaped,
    "alias": _same,
    "cat": _joined,
    "clone": _same,
    "constant_pad_nd": _padded,
    "copy": _copied,
    "detach": _same,
    "empty_like": _of_one_number,
    "expand": _expanded,
    "full_like": _of_one_number,
    "new_empty": _of_one_number,
    "new_full": _of_one_number,
    "new_zeros": _of_one_number,
    "permute": _permuted,
    "squeeze": _reshaped,
    "stack": _stacked,
    "t": _transposed,
    "transpose": _transposed,
    "unsqueeze": _reshaped,
    "view": _reshaped,
    "zeros_like": _of_one_number,
}
