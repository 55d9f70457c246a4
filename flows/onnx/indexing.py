"""ONNX nodes of operations that arrange tensors, choose parts of them or replace some."""

from typing import Any

import torch
from torch import Tensor

from flows.onnx.arithmetic import Translation
from flows.onnx.graph import Call, Operand, Value, rank_of
from flows.onnx.recording import Batch, OnnxError

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def _same(call: Call) -> Value:
    """Add nothing but a change of type."""
    return call["self"]


def _reshaped(call: Call) -> Value:
    return call.own.node("Reshape", call.graph.shape(call.outputs[0].shape), allowzero=1)


def _expanded(name: str) -> Translation:
    """Return the translation of an operation that repeats an operand, or 0, to the result's size."""

    def add(call: Call) -> Value:
        value = call.graph.value(call.args.get(name, 0), call.dtype)
        return value.expand(call.outputs[0].shape)

    return add


def _permuted(call: Call) -> Value:
    axes = call.args["dims"]
    return call.own.node("Transpose", perm=[axis % len(axes) for axis in axes])


def _transposed(call: Call) -> Value:
    order = list(range(call.rank))
    one = call.axis("dim0") if "dim0" in call.args else 0
    other = call.axis("dim1") if "dim1" in call.args else len(order) - 1
    order[one], order[other] = order[other], order[one]
    return call.own.node("Transpose", perm=order)


def _parts(call: Call) -> tuple[list[Value], int]:
    """Return the tensors to be joined, and the axis of the result."""
    values = [call.graph.value(part, call.dtype) for part in call.args["tensors"]]
    return values, call.args.get("dim", 0) % len(call.outputs[0].shape)


def _joined(call: Call) -> Value:
    (first, *others), axis = _parts(call)
    return first.node("Concat", *others, axis=axis)


def _stacked(call: Call) -> Value:
    values, axis = _parts(call)
    first, *others = (value.node("Unsqueeze", [axis]) for value in values)
    return first.node("Concat", *others, axis=axis)


def _padded(call: Call) -> Value:
    pads, rank = call.args["pad"], call.rank
    before, after = [0] * rank, [0] * rank
    for place in range(len(pads) // 2):
        before[rank - 1 - place], after[rank - 1 - place] = pads[2 * place : 2 * place + 2]
    return call["self"].node("Pad", [*before, *after], call.args.get("value") or 0)


def _selected(call: Call) -> Value:
    return _picked(call, call.args["index"])


def _unbound(call: Call) -> list[Value]:
    return [_picked(call, place) for place in range(len(call.outputs))]


def _picked(call: Call, place: int) -> Value:
    return call.own.node("Gather", call.graph.number(place, torch.int64), axis=call.axis())


def _ends(call: Call) -> tuple[int, int, int]:
    """Return start, end and step of a slice of an axis that is not the batch, as far as it counts."""
    start, end, step = (call.args.get(name) for name in ("start", "end", "step"))
    if isinstance(start, Batch) or isinstance(end, Batch):
        if start not in (None, 0):
            raise OnnxError("a part of the rows has no form in ONNX")
        end = _INT_MAX
    return start or 0, _INT_MAX if end is None else end, step or 1


def _sliced(call: Call) -> Value:
    return call.own.slice(*_ends(call), call.axis())


def _split(call: Call) -> list[Value]:
    value, axis, start = call.own, call.axis(), 0
    if len(call.outputs) == 1:
        return [value]
    found = []
    for variable in call.outputs:
        size = variable.shape[axis]
        if not isinstance(size, int):
            raise OnnxError("a part of the rows has no form in ONNX")
        found.append(value.slice(start, start + size, 1, axis))
        start += size
    return found


def _flipped(call: Call) -> Value:
    value = call.own
    for axis in call.args["dims"]:
        value = value.slice(-1, _INT_MIN, -1, axis % call.rank)
    return value


def _gathered(kind: str) -> Translation:
    def add(call: Call) -> Value:
        return call.own.node(kind, call.graph.value(call.args["index"]), axis=call.axis())

    return add


def _one_index(indices: list[Any]) -> tuple[int, Any]:
    """Return the axis and the index of an indexing by one tensor."""
    chosen = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or rank_of(chosen[0][1]) != 1 or chosen[0][1].dtype == torch.bool:
        raise OnnxError("an indexing by several tensors has no form in ONNX")
    return chosen[0]


def _indexed(call: Call) -> Value:
    axis, index = _one_index(call.args["indices"])
    return call.own.node("Gather", call.graph.value(index), axis=axis)


def _replaced(call: Call, axis: int, places: list[int], source: Operand) -> Value:
    """Add the first tensor with others in some places of an axis: both joined, then chosen from."""
    sizes = list(call.outputs[0].shape)
    size = sizes[axis]
    if not isinstance(size, int):
        raise OnnxError("a change of some rows has no form in ONNX")
    sizes[axis] = len(places)
    order = list(range(size))
    for number, place in enumerate(places):
        order[place % size] = size + number
    spread = call.graph.value(source, call.dtype).expand(sizes)
    both = call["self"].node("Concat", spread, axis=axis)
    return both.node("Gather", order, axis=axis)


def _put(call: Call) -> Value:
    axis, index = _one_index(call.args["indices"])
    if not isinstance(index, Tensor) or call.args.get("accumulate", False):
        raise OnnxError("an indexing by values has no form in ONNX")
    return _replaced(call, axis, index.tolist(), call.args["values"])


def _slice_put(call: Call) -> Value:
    axis = call.axis()
    size = call.outputs[0].shape[axis]
    start, end, step = _ends(call)
    if isinstance(size, Batch):
        if (start, step) == (0, 1):  # all rows
            return call["src"]
        raise OnnxError("a change of some rows has no form in ONNX")
    return _replaced(call, axis, list(range(size))[start:end:step], call.args["src"])


def _scattered(call: Call) -> Value:
    index = call.graph.value(call.args["index"])
    return call["self"].node("ScatterElements", index, call["src"], axis=call.axis())


def _searched(call: Call) -> Value:
    """Add the number of the ascending numbers below each value, or at most it."""
    right = call.args.get("right", False) or call.args.get("side") == "right"
    ends, values = call.compared("sorted_sequence", "self")
    row = ends.node("Unsqueeze", [rank_of(call.args["sorted_sequence"]) - 1])
    each = values.node("Unsqueeze", [call.rank])
    below = row.node("LessOrEqual" if right else "Less", each, dtype=torch.bool)
    return below.cast(torch.int64).node("ReduceSum", [-1], keepdims=0)


_REPEATED = ("empty_like", "full_like", "new_empty", "new_full", "new_zeros", "zeros_like")
_RESHAPED = ("_unsafe_view", "squeeze", "unsqueeze", "view")

INDEXING: dict[str, Translation] = {
    **dict.fromkeys(("_to_copy", "alias", "clone", "detach"), _same),
    **dict.fromkeys(_RESHAPED, _reshaped),
    **dict.fromkeys(_REPEATED, _expanded("fill_value")),
    "cat": _joined,
    "constant_pad_nd": _padded,
    "copy": _expanded("src"),
    "expand": _expanded("self"),
    "flip": _flipped,
    "gather": _gathered("GatherElements"),
    "index": _indexed,
    "index_put": _put,
    "index_select": _gathered("Gather"),
    "permute": _permuted,
    "scatter": _scattered,
    "searchsorted": _searched,
    "select": _selected,
    "slice": _sliced,
    "slice_scatter": _slice_put,
    "split": _split,
    "split_with_sizes": _split,
    "stack": _stacked,
    "t": _transposed,
    "transpose": _transposed,
    "unbind": _unbound,
}
