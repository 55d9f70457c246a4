"""Types, ranks and axes of the operands of recorded operations."""

from collections.abc import Callable

import torch
from torch import Tensor

from flows.onnx.graph import Graph, Operand
from flows.onnx.recording import Operation, Repeated, Variable

Translation = Callable[[Graph, Operation], str | list[str]]
"""Function that adds the nodes of an operation and returns the names of its outputs."""


def dtype_of(operation: Operation) -> torch.dtype:
    """Return the type of the first output."""
    return operation.outputs[0].dtype


def rank_of(operand: Operand) -> int:
    """Return the number of axes; 0 of a plain number."""
    return len(operand.shape) if isinstance(operand, Variable | Repeated | Tensor) else 0


def axis_of(operation: Operation, name: str = "dim") -> int:
    """Return an axis counted from the first."""
    axis: int = operation.args[name]
    return axis % max(rank_of(operation.args["self"]), 1)


def common_dtype(one: Operand, other: Operand) -> torch.dtype:
    """Return the type in which two operands are compared."""
    return torch.result_type(_sample(one), _sample(other))


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


def axes_of(operation: Operation) -> list[int]:
    """Return the axes of a reduction, counted from the first; all without a choice."""
    rank, given = rank_of(operation.args["self"]), operation.args.get("dim")
    chosen = range(rank) if given in (None, []) else [given] if isinstance(given, int) else given
    return [axis % rank for axis in chosen]
