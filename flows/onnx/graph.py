"""ONNX graph in the making: nodes, constants, and sizes that follow the number of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from flows.onnx.recording import Batch, Operation, Repeated, Size, Variable

Scalar = bool | int | float
Operand = Variable | Repeated | Tensor | Scalar
"""Argument of an operation that stands for a tensor."""

TYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.bool: TensorProto.BOOL,
}


class Value:
    """Value of a graph, with Python's operators, each of which adds a node."""

    def __init__(self, graph: "Graph", name: str, dtype: torch.dtype) -> None:
        self.graph, self.name, self.dtype = graph, name, dtype

    def node(
        self,
        kind: str,
        *others: "Value | Scalar | list[int]",
        dtype: torch.dtype | None = None,
        **attributes: Any,  # noqa: ANN401  as `onnx.helper.make_node` takes them
    ) -> "Value":
        """Add a node that reads this value first; return its output, of this type by default.

        Of the further inputs a number becomes a constant of this type, a list one of integers.
        """
        inputs = [self]
        for other in others:
            if isinstance(other, list):
                inputs.append(self.graph.integers(other))
            else:
                inputs.append(
                    other if isinstance(other, Value) else self.graph.number(other, self.dtype)
                )
        return self.graph.node(kind, inputs, dtype or self.dtype, **attributes)

    def cast(self, dtype: torch.dtype) -> "Value":
        """Return the value in another type."""
        return self if self.dtype == dtype else self.node("Cast", dtype=dtype, to=TYPES[dtype])

    def slice(self, start: int, end: int, step: int, axis: int) -> "Value":
        """Return part of an axis."""
        return self.node("Slice", [start], [end], [axis], [step])

    def expand(self, sizes: Sequence[Size]) -> "Value":
        """Return the value repeated to these sizes."""
        return self.node("Expand", self.graph.shape(sizes))

    def __add__(self, other: "Value | Scalar") -> "Value":
        return self.node("Add", other)

    def __sub__(self, other: "Value | Scalar") -> "Value":
        return self.node("Sub", other)

    def __rsub__(self, other: Scalar) -> "Value":
        return self.graph.number(other, self.dtype) - self

    def __mul__(self, other: "Value | Scalar") -> "Value":
        return self.node("Mul", other)

    def __truediv__(self, other: "Value | Scalar") -> "Value":
        return self.node("Div", other)

    def __neg__(self) -> "Value":
        return self.node("Neg")

    def __abs__(self) -> "Value":
        return self.node("Abs")


class Graph:
    """Nodes and constants, in the order in which they were added.

    Attributes:
        constants: Constants that the nodes read.
    """

    def __init__(self, rows: str) -> None:
        """Begin a graph; `rows` names the input whose first axis is the batch."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._rows = rows
        self._bound: dict[int, Value] = {}
        self._known: dict[object, Value] = {}
        self._kept: list[Tensor] = []

    def bind(self, variable: Variable, name: str) -> None:
        """Give a variable of the record its name in the graph."""
        self._bound[variable.key] = Value(self, name, variable.dtype)

    def value(self, operand: Operand, dtype: torch.dtype | None = None) -> Value:
        """Return the value of an operand, in its own type or in another."""
        match operand:
            case Variable():
                found = self._bound[operand.key]
            case Repeated():
                return self.value(operand.tensor, dtype).expand(operand.shape)
            case Tensor():
                found = self.constant(operand)
            case _:
                return self.number(operand, dtype or torch.get_default_dtype())
        return found if dtype is None else found.cast(dtype)

    def node(
        self,
        kind: str,
        inputs: Sequence[Value],
        dtype: torch.dtype,
        **attributes: Any,  # noqa: ANN401  as `onnx.helper.make_node` takes them
    ) -> Value:
        """Add a node and return its output."""
        name = f"v{len(self.nodes)}"
        names = [value.name for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return Value(self, name, dtype)

    def constant(self, value: Tensor) -> Value:
        """Return a constant tensor, which is kept once."""
        if id(value) not in self._known:
            self._kept.append(value)  # so that no other one gets its id
        return self._once(id(value), value)

    def number(self, value: Scalar, dtype: torch.dtype) -> Value:
        """Return a constant number."""
        return self._once((dtype, repr(value)), torch.tensor(value, dtype=dtype))

    def integers(self, values: Sequence[int]) -> Value:
        """Return a constant list of integers."""
        return self._once(("integers", *values), torch.tensor(list(values), dtype=torch.int64))

    def shape(self, sizes: Sequence[Size]) -> Value:
        """Return a list of sizes, of which some follow the number of rows."""
        if not any(isinstance(size, Batch) for size in sizes):
            return self.integers([size for size in sizes if isinstance(size, int)])
        key = ("shape", *sizes)
        if key not in self._known:
            parts = [self._size(size) for size in sizes]
            self._known[key] = self.node("Concat", parts, torch.int64, axis=0)
        return self._known[key]

    def _size(self, size: Size) -> Value:
        if isinstance(size, int):
            return self.integers([size])
        if "batch" not in self._known:
            rows = Value(self, self._rows, torch.float64)
            self._known["batch"] = rows.node("Shape", dtype=torch.int64, start=0, end=1)
        batch = self._known["batch"]
        return batch if size.factor == 1 else batch.node("Mul", [size.factor])

    def _once(self, key: object, value: Tensor) -> Value:
        if key not in self._known:
            name = f"c{len(self.constants)}"
            array: np.ndarray = value.detach().cpu().contiguous().numpy()
            self.constants.append(numpy_helper.from_array(array, name))
            self._known[key] = Value(self, name, value.dtype)
        return self._known[key]


class Call:
    """Recorded operation, on its way into a graph; `dtype` is the type of its first output."""

    def __init__(self, graph: Graph, operation: Operation) -> None:
        self.graph, self.args, self.outputs = graph, operation.args, operation.outputs
        self.dtype = operation.outputs[0].dtype

    @property
    def own(self) -> Value:
        """The tensor operated on, in its own type."""
        return self.graph.value(self.args["self"])

    @property
    def rank(self) -> int:
        """Number of axes of the tensor operated on."""
        return rank_of(self.args["self"])

    def __getitem__(self, name: str) -> Value:
        """Return an operand in the type of the result."""
        return self.graph.value(self.args[name], self.dtype)

    def axis(self, name: str = "dim") -> int:
        """Return an axis counted from the first."""
        axis: int = self.args[name]
        return axis % max(self.rank, 1)

    def axes(self) -> list[int]:
        """Return the axes of a reduction, counted from the first; all without a choice."""
        given, rank = self.args.get("dim"), self.rank
        if given in (None, []):
            return list(range(rank))
        return [axis % rank for axis in ([given] if isinstance(given, int) else given)]

    def compared(self, one: str, other: str) -> tuple[Value, Value]:
        """Return two operands in the type in which they are compared."""
        operands = self.args[one], self.args[other]
        dtype = torch.result_type(*(_sample(operand) for operand in operands))
        first, second = (self.graph.value(operand, dtype) for operand in operands)
        return first, second


def rank_of(operand: Operand) -> int:
    """Return the number of axes; 0 of a plain number."""
    return len(operand.shape) if isinstance(operand, Variable | Repeated | Tensor) else 0


def _sample(operand: Operand) -> Tensor:
    """Return a tensor whose type counts like that of an operand: numbers less than tensors."""
    match operand:
        case Variable():
            return torch.empty([1] * len(operand.shape), dtype=operand.dtype)
        case Repeated():
            return operand.tensor
        case Tensor():
            return operand
        case _:
            return torch.tensor(operand)
