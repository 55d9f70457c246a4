"""ONNX nodes of operations on each number: arithmetic, comparisons, elementary functions."""

import math

import torch

from flows.onnx.graph import Graph
from flows.onnx.operands import Translation, common_dtype, dtype_of
from flows.onnx.recording import OnnxError, Operation

_OF_TRUTHS = {"Mul": "And", "Add": "Or"}


def _plain(kind: str) -> Translation:
    """Return the translation of an operation on one tensor, in the type of its result."""

    def add(graph: Graph, operation: Operation) -> str:
        return graph.node(kind, graph.value(operation.args["self"]), dtype=dtype_of(operation))

    return add


def _pair(kind: str) -> Translation:
    """Return the translation of an operation on two tensors, in the type of its result."""

    def add(graph: Graph, operation: Operation) -> str:
        dtype = dtype_of(operation)
        other = _scaled(graph, operation, dtype)
        if dtype == torch.bool:
            return graph.node(
                _OF_TRUTHS.get(kind, kind),
                graph.value(operation.args["self"], dtype),
                other,
                dtype=dtype,
            )
        return graph.node(kind, graph.value(operation.args["self"], dtype), other, dtype=dtype)

    return add


def _scaled(graph: Graph, operation: Operation, dtype: torch.dtype) -> str:
    """Return the second operand times `alpha`."""
    other = graph.value(operation.args["other"], dtype)
    alpha = operation.args.get("alpha", 1)
    if alpha == 1:
        return other
    return graph.node("Mul", other, graph.number(alpha, dtype), dtype=dtype)


def _reversed_difference(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    one = graph.value(operation.args["self"], dtype)
    other = graph.value(operation.args["other"], dtype)
    if operation.args.get("alpha", 1) != 1:
        raise OnnxError("a scaled difference has no form in ONNX")
    return graph.node("Sub", other, one, dtype=dtype)


def _comparison(kind: str) -> Translation:
    def add(graph: Graph, operation: Operation) -> str:
        one, other = operation.args["self"], operation.args["other"]
        dtype = common_dtype(one, other)
        names = graph.value(one, dtype), graph.value(other, dtype)
        return graph.node(kind, *names, dtype=torch.bool)

    return add


def _differs(graph: Graph, operation: Operation) -> str:
    equal = _comparison("Equal")(graph, operation)
    assert isinstance(equal, str)  # noqa: S101  one output
    return graph.node("Not", equal, dtype=torch.bool)


def _where(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    args = operation.args
    condition = graph.value(args["condition"])
    branches = graph.value(args["self"], dtype), graph.value(args["other"], dtype)
    return graph.node("Where", condition, *branches, dtype=dtype)


def _filled(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    value = graph.value(operation.args["value"], dtype)
    mask = graph.value(operation.args["mask"])
    return graph.node("Where", mask, value, graph.value(operation.args["self"], dtype), dtype=dtype)


def _clamped(graph: Graph, operation: Operation) -> str:
    """Add bounds by comparison, which keep a NaN."""
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    for bound, kind in (
        (operation.args.get("min"), "Less"),
        (operation.args.get("max"), "Greater"),
    ):
        if bound is not None:
            limit = graph.value(bound, dtype)
            beyond = graph.node(kind, name, limit, dtype=torch.bool)
            name = graph.node("Where", beyond, limit, name, dtype=dtype)
    return name


def _power(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name, exponent = graph.value(operation.args["self"], dtype), operation.args["exponent"]
    if exponent == 2:
        return graph.node("Mul", name, name, dtype=dtype)
    return graph.node("Pow", name, graph.value(exponent, dtype), dtype=dtype)


def _softplus_of(graph: Graph, name: str, dtype: torch.dtype) -> str:
    """Add log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    zero, one = graph.number(0, dtype), graph.number(1, dtype)
    size = graph.node("Neg", graph.node("Abs", name, dtype=dtype), dtype=dtype)
    grown = graph.node("Add", graph.node("Exp", size, dtype=dtype), one, dtype=dtype)
    most = graph.node("Max", name, zero, dtype=dtype)
    return graph.node("Add", most, graph.node("Log", grown, dtype=dtype), dtype=dtype)


def _softplus(graph: Graph, operation: Operation) -> str:
    if operation.args.get("beta", 1) != 1:
        raise OnnxError("a scaled softplus has no form in ONNX")
    dtype = dtype_of(operation)
    return _softplus_of(graph, graph.value(operation.args["self"], dtype), dtype)


def _log_sigmoid(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    negated = graph.node("Neg", graph.value(operation.args["self"], dtype), dtype=dtype)
    return graph.node("Neg", _softplus_of(graph, negated, dtype), dtype=dtype)


def _logit(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    rest = graph.node("Sub", graph.number(1, dtype), name, dtype=dtype)
    return graph.node("Log", graph.node("Div", name, rest, dtype=dtype), dtype=dtype)


def _elu(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name, zero = graph.value(operation.args["self"], dtype), graph.number(0, dtype)
    below = graph.node("Exp", graph.node("Min", name, zero, dtype=dtype), dtype=dtype)
    below = graph.node("Sub", below, graph.number(1, dtype), dtype=dtype)
    return graph.node("Add", graph.node("Max", name, zero, dtype=dtype), below, dtype=dtype)


def _gelu(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    scaled = graph.node("Mul", name, graph.number(math.sqrt(0.5), dtype), dtype=dtype)
    spread = graph.node("Erf", scaled, dtype=dtype)
    share = graph.node("Add", spread, graph.number(1, dtype), dtype=dtype)
    half = graph.node("Mul", name, graph.number(0.5, dtype), dtype=dtype)
    return graph.node("Mul", half, share, dtype=dtype)


def _log1p(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    grown = graph.node("Add", name, graph.number(1, dtype), dtype=dtype)
    return graph.node("Log", grown, dtype=dtype)


def _asinh(graph: Graph, operation: Operation) -> str:
    """Add sign(x) log(|x| + sqrt(x^2 + 1))."""
    dtype = dtype_of(operation)
    name = graph.value(operation.args["self"], dtype)
    size = graph.node("Abs", name, dtype=dtype)
    square = graph.node("Mul", name, name, dtype=dtype)
    grown = graph.node("Add", square, graph.number(1, dtype), dtype=dtype)
    total = graph.node("Add", size, graph.node("Sqrt", grown, dtype=dtype), dtype=dtype)
    sign = graph.node("Sign", name, dtype=dtype)
    return graph.node("Mul", sign, graph.node("Log", total, dtype=dtype), dtype=dtype)


def _lerp(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    start = graph.value(operation.args["self"], dtype)
    way = graph.node("Sub", graph.value(operation.args["end"], dtype), start, dtype=dtype)
    part = graph.node("Mul", way, graph.value(operation.args["weight"], dtype), dtype=dtype)
    return graph.node("Add", start, part, dtype=dtype)


def _addcmul(graph: Graph, operation: Operation) -> str:
    dtype = dtype_of(operation)
    factors = (graph.value(operation.args[name], dtype) for name in ("tensor1", "tensor2"))
    product = graph.node("Mul", *factors, dtype=dtype)
    if operation.args.get("value", 1) != 1:
        product = graph.node(
            "Mul", product, graph.number(operation.args["value"], dtype), dtype=dtype
        )
    return graph.node("Add", graph.value(operation.args["self"], dtype), product, dtype=dtype)


ELEMENTWISE: dict[str, Translation] = {
    "abs": _plain("Abs"),
    "add": _pair("Add"),
    "addcmul": _addcmul,
    "asinh": _asinh,
    "bitwise_and": _pair("And"),
    "bitwise_not": _plain("Not"),
    "bitwise_or": _pair("Or"),
    "clamp": _clamped,
    "clamp_max": _clamped,
    "clamp_min": _clamped,
    "div": _pair("Div"),
    "elu": _elu,
    "eq": _comparison("Equal"),
    "exp": _plain("Exp"),
    "floor": _plain("Floor"),
    "ge": _comparison("GreaterOrEqual"),
    "gelu": _gelu,
    "gt": _comparison("Greater"),
    "isinf": _plain("IsInf"),
    "isnan": _plain("IsNaN"),
    "le": _comparison("LessOrEqual"),
    "lerp": _lerp,
    "log": _plain("Log"),
    "log1p": _log1p,
    "log_sigmoid_forward": _log_sigmoid,
    "logical_and": _pair("And"),
    "logical_not": _plain("Not"),
    "logit": _logit,
    "lt": _comparison("Less"),
    "masked_fill": _filled,
    "maximum": _pair("Max"),
    "minimum": _pair("Min"),
    "mul": _pair("Mul"),
    "ne": _differs,
    "neg": _plain("Neg"),
    "pow": _power,
    "relu": _plain("Relu"),
    "rsub": _reversed_difference,
    "sigmoid": _plain("Sigmoid"),
    "sign": _plain("Sign"),
    "softplus": _softplus,
    "sqrt": _plain("Sqrt"),
    "sub": _pair("Sub"),
    "tanh": _plain("Tanh"),
    "where": _where,
}
