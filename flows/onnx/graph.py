"""ONNX graph in the making: nodes, constants, and sizes that follow the number of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from flows.onnx.recording import Batch, Repeated, Size, Variable

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


class Graph:
    """Nodes and constants, in the order in which they were added.

    Attributes:
        nodes: Nodes of the graph.
        constants: Constants that the nodes read.
    """

    def __init__(self, rows: str) -> None:
        """Begin a graph.

        Args:
            rows: Name of the input whose first axis is the batch.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._rows = rows
        self._names: dict[int, str] = {}
        self._types: dict[str, torch.dtype] = {}
        self._known: dict[object, str] = {}
        self._kept: list[Tensor] = []

    def bind(self, variable: Variable, name: str) -> None:
        """Give a variable of the record its name in the graph."""
        self._names[variable.key] = name
        self._types[name] = variable.dtype

    def name_of(self, variable: Variable) -> str:
        """Return the name of a variable of the record."""
        return self._names[variable.key]

    def node(
        self,
        kind: str,
        *inputs: str,
        dtype: torch.dtype,
        **attributes: Any,  # noqa: ANN401  as `onnx.helper.make_node` takes them
    ) -> str:
        """Add a node and return the name of its output.

        Args:
            kind: Type of the operation.
            inputs: Names of its inputs.
            dtype: Type of its output.
            attributes: Attributes of the operation.
        """
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        self._types[name] = dtype
        return name

    def constant(self, value: Tensor) -> str:
        """Return the name of a constant tensor, which is kept once."""
        if id(value) not in self._known:
            self._kept.append(value)  # so that no other one gets its id
            array = value.detach().cpu().contiguous().numpy()
            self._known[id(value)] = self._add(array, value.dtype)
        return self._known[id(value)]

    def number(self, value: Scalar, dtype: torch.dtype) -> str:
        """Return the name of a constant number."""
        key = (dtype, repr(value))
        if key not in self._known:
            self._known[key] = self._add(torch.tensor(value, dtype=dtype).numpy(), dtype)
        return self._known[key]

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a constant list of integers."""
        key = ("integers", *values)
        if key not in self._known:
            self._known[key] = self._add(np.asarray(values, dtype=np.int64), torch.int64)
        return self._known[key]

    def shape(self, sizes: Sequence[Size]) -> str:
        """Return the name of a list of sizes, of which some follow the number of rows."""
        if not any(isinstance(size, Batch) for size in sizes):
            return self.integers([size for size in sizes if isinstance(size, int)])
        key = ("shape", *sizes)
        if key not in self._known:
            parts = [self._size(size) for size in sizes]
            self._known[key] = self.node("Concat", *parts, dtype=torch.int64, axis=0)
        return self._known[key]

    def _size(self, size: Size) -> str:
        if isinstance(size, int):
            return self.integers([size])
        if "batch" not in self._known:
            self._known["batch"] = self.node("Shape", self._rows, dtype=torch.int64, start=0, end=1)
        batch = self._known["batch"]
        if size.factor == 1:
            return batch
        return self.node("Mul", batch, self.integers([size.factor]), dtype=torch.int64)

    def value(self, operand: Operand, dtype: torch.dtype | None = None) -> str:
        """Return the name of an operand.

        Args:
            operand: Variable, constant tensor or number.
            dtype: Type that it shall have; None: its own.
        """
        match operand:
            case Variable():
                return self.cast(self.name_of(operand), dtype or operand.dtype)
            case Repeated():
                one = self.value(operand.tensor, dtype)
                return self.node("Expand", one, self.shape(operand.shape), dtype=self._types[one])
            case Tensor():
                return (
                    self.constant(operand)
                    if dtype in (None, operand.dtype)
                    else self.cast(self.constant(operand), dtype)
                )
            case _:
                return self.number(operand, dtype or torch.get_default_dtype())

    def cast(self, name: str, dtype: torch.dtype) -> str:
        """Return the name of a value in another type."""
        if self._types[name] == dtype:
            return name
        return self.node("Cast", name, dtype=dtype, to=TYPES[dtype])

    def _add(self, array: np.ndarray, dtype: torch.dtype) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        self._types[name] = dtype
        return name
