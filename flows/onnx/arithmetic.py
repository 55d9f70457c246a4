"""ONNX nodes of operations on each number, of matrix products and of reductions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flows.onnx.graph import Call, Value
from flows.onnx.recording import OnnxError

Translation = Callable[[Call], Value | list[Value]]
"""Function that adds the nodes of an operation and returns its outputs."""

_PLAIN = {
    "abs": "Abs",
    "bitwise_not": "Not",
    "exp": "Exp",
    "floor": "Floor",
    "isinf": "IsInf",
    "isnan": "IsNaN",
    "log": "Log",
    "logical_not": "Not",
    "neg": "Neg",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_PAIRS = {
    "add": "Add",
    "bitwise_and": "And",
    "bitwise_or": "Or",
    "div": "Div",
    "logical_and": "And",
    "maximum": "Max",
    "minimum": "Min",
    "mul": "Mul",
    "sub": "Sub",
}
_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}
_REDUCTIONS = {"amax": "ReduceMax", "amin": "ReduceMin", "sum": "ReduceSum"}
_OF_TRUTHS = {"Mul": "And", "Add": "Or"}


def _plain(kind: str) -> Translation:
    """Return the translation of an operation on one tensor, in the type of its result."""
    return lambda call: call.own.node(kind, dtype=call.dtype)


def _pair(kind: str) -> Translation:
    """Return the translation of an operation on two tensors, in the type of its result."""

    def add(call: Call) -> Value:
        other, alpha = call["other"], call.args.get("alpha", 1)
        if alpha != 1:
            other = other * alpha
        name = _OF_TRUTHS.get(kind, kind) if call.dtype == torch.bool else kind
        return call["self"].node(name, other)

    return add


def _comparison(kind: str) -> Translation:
    def add(call: Call) -> Value:
        one, other = call.compared("self", "other")
        return one.node(kind, other, dtype=torch.bool)

    return add


def _differs(call: Call) -> Value:
    one, other = call.compared("self", "other")
    return one.node("Equal", other, dtype=torch.bool).node("Not")


def _reversed_difference(call: Call) -> Value:
    if call.args.get("alpha", 1) != 1:
        raise OnnxError("a scaled difference has no form in ONNX")
    return call["other"] - call["self"]


def _where(call: Call) -> Value:
    condition = call.graph.value(call.args["condition"])
    return condition.node("Where", call["self"], call["other"], dtype=call.dtype)


def _filled(call: Call) -> Value:
    mask = call.graph.value(call.args["mask"])
    return mask.node("Where", call["value"], call["self"], dtype=call.dtype)


def _clamped(call: Call) -> Value:
    """Add bounds by comparison, which keep a NaN."""
    value = call["self"]
    for name, kind in (("min", "Less"), ("max", "Greater")):
        if call.args.get(name) is not None:
            beyond = value.node(kind, call[name], dtype=torch.bool)
            value = beyond.node("Where", call[name], value, dtype=call.dtype)
    return value


def _power(call: Call) -> Value:
    value = call["self"]
    return value * value if call.args["exponent"] == 2 else value.node("Pow", call["exponent"])


def _softplus_of(value: Value) -> Value:
    """Add log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    return value.node("Max", 0) + ((-abs(value)).node("Exp") + 1).node("Log")


def _softplus(call: Call) -> Value:
    if call.args.get("beta", 1) != 1:
        raise OnnxError("a scaled softplus has no form in ONNX")
    return _softplus_of(call["self"])


def _logit(call: Call) -> Value:
    value = call["self"]
    return (value / (1 - value)).node("Log")


def _elu(call: Call) -> Value:
    value = call["self"]
    return value.node("Max", 0) + (value.node("Min", 0).node("Exp") - 1)


def _gelu(call: Call) -> Value:
    value = call["self"]
    return value * 0.5 * ((value * math.sqrt(0.5)).node("Erf") + 1)


def _asinh(call: Call) -> Value:
    """Add sign(x) log(|x| + sqrt(x^2 + 1))."""
    value = call["self"]
    root = (value * value + 1).node("Sqrt")
    return value.node("Sign") * (abs(value) + root).node("Log")


def _lerp(call: Call) -> Value:
    start = call["self"]
    return start + (call["end"] - start) * call["weight"]


def _addcmul(call: Call) -> Value:
    product, factor = call["tensor1"] * call["tensor2"], call.args.get("value", 1)
    return call["self"] + (product if factor == 1 else product * factor)


def _addmm(call: Call) -> Value:
    first, *others = (call.graph.value(call.args[name]) for name in ("mat1", "mat2", "self"))
    alpha, beta = float(call.args.get("alpha", 1)), float(call.args.get("beta", 1))
    return first.node("Gemm", *others, alpha=alpha, beta=beta)


def _matmul(call: Call) -> Value:
    return call.own.node("MatMul", call.graph.value(call.args["mat2"]))


def _solved(call: Call) -> Value:
    """Add a product with the inverse of a constant triangle, which is computed in float64."""
    args = call.args
    triangle = args["self"]
    if not isinstance(triangle, Tensor) or not args.get("left", True):
        raise OnnxError("a triangular system of the rows has no form in ONNX")
    exact = triangle.double()
    inverse = torch.linalg.solve_triangular(
        exact,
        torch.eye(len(exact), dtype=torch.float64),
        upper=args["upper"],
        unitriangular=args.get("unitriangular", False),
    )
    known = call.graph.constant(inverse.to(triangle.dtype))
    return known.node("MatMul", call.graph.value(args["B"]))


def _reduced(call: Call, kind: str, value: Value) -> Value:
    keep = int(bool(call.args.get("keepdim", False)))
    return value.node(kind, call.axes(), keepdims=keep)


def _reduction(kind: str) -> Translation:
    return lambda call: _reduced(call, kind, call["self"])


def _truth(kind: str) -> Translation:
    """Return the translation of `all` (ReduceMin) and `any` (ReduceMax)."""

    def add(call: Call) -> Value:
        numbers = call.own.cast(torch.bool).cast(torch.int32)
        return _reduced(call, kind, numbers).cast(torch.bool)

    return add


def _logsumexp(call: Call) -> Value:
    """Add m + log sum e^(x - m) with the largest m, or 0 where that is infinite."""
    value, axes = call["self"], call.axes()
    most = value.node("ReduceMax", axes, keepdims=1)
    infinite = most.node("IsInf", dtype=torch.bool)
    most = infinite.node("Where", call.graph.number(0, call.dtype), most, dtype=call.dtype)
    total = (value - most).node("Exp").node("ReduceSum", axes, keepdims=1)
    result = total.node("Log") + most
    return result if call.args.get("keepdim", False) else result.node("Squeeze", axes)


def _norm(call: Call) -> Value:
    if call.args.get("ord", 2) != 2:
        raise OnnxError("its norm has no form in ONNX")
    value = call["self"]
    return _reduced(call, "ReduceSum", value * value).node("Sqrt")


def _along(kind: str) -> Translation:
    """Return the translation of an operation along an axis that ONNX has as an attribute."""
    return lambda call: call["self"].node(kind, axis=call.axis())


def _cumsum(call: Call) -> Value:
    return call["self"].node("CumSum", call.graph.number(call.axis(), torch.int64))


ARITHMETIC: dict[str, Translation] = {
    **{name: _plain(kind) for name, kind in _PLAIN.items()},
    **{name: _pair(kind) for name, kind in _PAIRS.items()},
    **{name: _comparison(kind) for name, kind in _COMPARISONS.items()},
    **{name: _reduction(kind) for name, kind in _REDUCTIONS.items()},
    "_log_softmax": _along("LogSoftmax"),
    "_softmax": _along("Softmax"),
    "addcmul": _addcmul,
    "addmm": _addmm,
    "all": _truth("ReduceMin"),
    "any": _truth("ReduceMax"),
    "asinh": _asinh,
    "bmm": _matmul,
    "clamp": _clamped,
    "clamp_max": _clamped,
    "clamp_min": _clamped,
    "cumsum": _cumsum,
    "elu": _elu,
    "gelu": _gelu,
    "lerp": _lerp,
    "linalg_solve_triangular": _solved,
    "linalg_vector_norm": _norm,
    "log1p": lambda call: (call["self"] + 1).node("Log"),
    "log_sigmoid_forward": lambda call: -_softplus_of(-call["self"]),
    "logit": _logit,
    "logsumexp": _logsumexp,
    "masked_fill": _filled,
    "mm": _matmul,
    "ne": _differs,
    "pow": _power,
    "rsub": _reversed_difference,
    "softplus": _softplus,
    "where": _where,
}
