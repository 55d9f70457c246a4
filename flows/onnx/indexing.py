"""ONNX nodes of operations that choose or replace parts of tensors."""

from typing import Any

import torch
from torch import Tensor

from flows.onnx.graph import Graph, Operand
from flows.onnx.operands import Translation, axis_of, common_dtype, dtype_of, rank_of
from flows.onnx.recording import Batch, OnnxError, Operation

_INT_MIN = -(2**63)


def _selected(graph: Graph, operation: Operation) -> str:
    name = graph.value(operation.args["self"])
    place = graph.number(operation.args["index"], torch.int64)
    return graph.node("Gather", name, place, dtype=dtype_of(operation), axis=axis_of(operation))


def _unbound(graph: Graph, operation: Operation) -> list[str]:
    name, axis = graph.value(operation.args["self"]), axis_of(operation)
    return [
        graph.node(
            "Gather", name, graph.number(place, torch.int64), dtype=dtype_of(operation), axis=axis
        )
        for place in range(len(operation.outputs))
    ]


def _slice(
    graph: Graph, name: str, ends: tuple[int, int, int], axis: int, dtype: torch.dtype
) -> str:
    start, end, step = (graph.integers([end]) for end in ends)
    return graph.node("Slice", name, start, end, graph.integers([axis]), step, dtype=dtype)


def _ends(operation: Operation) -> tuple[int, int, int]:
    """Return start, end and step of a slice of an axis that is not the batch, as far as it counts."""
    start, end, step = (operation.args.get(name) for name in ("start", "end", "step"))
    most = 2**63 - 1
    if isinstance(start, Batch) or isinstance(end, Batch):
        if start not in (None, 0):
            raise OnnxError("a part of the rows has no form in ONNX")
        end = most
    return start or 0, most if end is None else end, step or 1


def _sliced(graph: Graph, operation: Operation) -> str:
    name = graph.value(operation.args["self"])
    return _slice(graph, name, _ends(operation), axis_of(operation), dtype_of(operation))


def _split(graph: Graph, operation: Operation) -> list[str]:
    name, axis, dtype = graph.value(operation.args["self"]), axis_of(operation), dtype_of(operation)
    if len(operation.outputs) == 1:
        return [name]
    names, start = [], 0
    for variable in operation.outputs:
        size = variable.shape[axis]
        if not isinstance(size, int):
            raise OnnxError("a part of the rows has no form in ONNX")
        names.append(_slice(graph, name, (start, start + size, 1), axis, dtype))
        start += size
    return names


def _flipped(graph: Graph, operation: Operation) -> str:
    name = graph.value(operation.args["self"])
    for axis in operation.args["dims"]:
        place = axis % rank_of(operation.args["self"])
        name = _slice(graph, name, (-1, _INT_MIN, -1), place, dtype_of(operation))
    return name


def _gathered(graph: Graph, operation: Operation) -> str:
    names = graph.value(operation.args["self"]), graph.value(operation.args["index"])
    return graph.node("GatherElements", *names, dtype=dtype_of(operation), axis=axis_of(operation))


def _index_selected(graph: Graph, operation: Operation) -> str:
    names = graph.value(operation.args["self"]), graph.value(operation.args["index"])
    return graph.node("Gather", *names, dtype=dtype_of(operation), axis=axis_of(operation))


def _one_index(indices: list[Any]) -> tuple[int, Any]:
    """Return the axis and the index of an indexing by one tensor."""
    chosen = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or rank_of(chosen[0][1]) != 1 or chosen[0][1].dtype == torch.bool:
        raise OnnxError("an indexing by several tensors has no form in ONNX")
    return chosen[0]


def _indexed(graph: Graph, operation: Operation) -> str:
    axis, index = _one_index(operation.args["indices"])
    names = graph.value(operation.args["self"]), graph.value(index)
    return graph.node("Gather", *names, dtype=dtype_of(operation), axis=axis)


def _replaced(
    graph: Graph, operation: Operation, axis: int, places: list[int], source: Operand
) -> str:
    """Add the first tensor with others in some places of an axis: both joined, then chosen from."""
    dtype, sizes = dtype_of(operation), list(operation.outputs[0].shape)
    size = sizes[axis]
    if not isinstance(size, int):
        raise OnnxError("a change of some rows has no form in ONNX")
    sizes[axis] = len(places)
    spread = graph.node("Expand", graph.value(source, dtype), graph.shape(sizes), dtype=dtype)
    order = list(range(size))
    for number, place in enumerate(places):
        order[place % size] = size + number
    own = graph.value(operation.args["self"], dtype)
    both = graph.node("Concat", own, spread, dtype=dtype, axis=axis)
    return graph.node("Gather", both, graph.integers(order), dtype=dtype, axis=axis)


def _put(graph: Graph, operation: Operation) -> str:
    axis, index = _one_index(operation.args["indices"])
    if not isinstance(index, Tensor) or operation.args.get("accumulate", False):
        raise OnnxError("an indexing by values has no form in ONNX")
    return _replaced(graph, operation, axis, index.tolist(), operation.args["values"])


def _slice_put(graph: Graph, operation: Operation) -> str:
    axis = axis_of(operation)
    size = operation.outputs[0].shape[axis]
    start, end, step = _ends(operation)
    if isinstance(size, Batch):
        if (start, step) == (0, 1):  # all rows
            return graph.value(operation.args["src"], dtype_of(operation))
        raise OnnxError("a change of some rows has no form in ONNX")
    places = list(range(size))[start:end:step]
    return _replaced(graph, operation, axis, places, operation.args["src"])


def _scattered(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    names = (
        graph.value(operation.args["self"], dtype),
        graph.value(operation.args["index"]),
        graph.value(operation.args["src"], dtype),
    )
    return graph.node("ScatterElements", *names, dtype=dtype, axis=axis_of(operation))


def _searched(graph: Graph, operation: Operation) -> str:
    """Add the number of the ascending numbers below each value, or at most it."""
    args = operation.args
    ends, values = args["sorted_sequence"], args["self"]
    right = args.get("right", False) or args.get("side") == "right"
    dtype = common_dtype(ends, values)
    rank = rank_of(ends)
    row = graph.node("Unsqueeze", graph.value(ends, dtype), graph.integers([rank - 1]), dtype=dtype)
    each = graph.node(
        "Unsqueeze", graph.value(values, dtype), graph.integers([rank_of(values)]), dtype=dtype
    )
    below = graph.node("LessOrEqual" if right else "Less", row, each, dtype=torch.bool)
    last = graph.integers([-1])
    count = graph.cast(below, torch.int64)
    return graph.node("ReduceSum", count, last, dtype=torch.int64, keepdims=0)


INDEXING: dict[str, Translation] = {
    "flip": _flipped,
    "gather": _gathered,
    "index": _indexed,
    "index_put": _put,
    "index_select": _index_selected,
    "scatter": _scattered,
    "searchsorted": _searched,
    "select": _selected,
    "slice": _sliced,
    "slice_scatter": _slice_put,
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbound,
}
