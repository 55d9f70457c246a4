"""Record of the operations that a function does on its rows, and which of its sizes are the batch's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode

from flows.errors import FlowError

# Numbers of rows of the two records: what differs between them follows the batch.
_BATCHES = (3, 5)
# Operations of a graph: the largest flows have some thousands, and each takes a fraction of a
# millisecond to write and to load.
MOST_OPERATIONS = 20_000
# Operations that turn values into Python's, on which a program could branch.
_READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "item", "tolist")


class OnnxError(FlowError):
    """Density that has no ONNX graph; its text names the reason."""


@dataclass(frozen=True)
class Batch:
    """Size that is the number of rows times a factor."""

    factor: int


Size = int | Batch


@dataclass(frozen=True)
class Variable:
    """Tensor that depends on the rows; its key is its number in the record."""

    key: int
    dtype: torch.dtype
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Repeated:
    """Constant that is the same for each row: that of one row, and the sizes for all rows."""

    tensor: Tensor
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Operation:
    """Operation of PyTorch, such as `add.Tensor`, by whose arguments' names it has all, defaults too."""

    name: str
    args: dict[str, Any]
    outputs: list[Variable]


@dataclass(frozen=True)
class Recording:
    """Operations between the rows and the result, in order."""

    inputs: list[Variable]
    operations: list[Operation]
    result: Variable


def record(function: Callable[..., Tensor], dims: Sequence[int]) -> Recording:
    """Return the operations of a function of tables in float64, a number a row, for any number of rows.

    What does not depend on the rows is computed now, and is a constant of the record. `dims` are the
    numbers of columns of the tables.

    Raises:
        OnnxError: The operations depend on the values of the rows, or on their number.
    """
    one, other = (_Recorder(function, dims, rows) for rows in _BATCHES)
    if len(one.calls) != len(other.calls):
        raise OnnxError("its operations depend on the number of rows")
    merge = _Merge(one, other)
    inputs = [merge.variable(*pair) for pair in zip(one.inputs, other.inputs, strict=True)]
    operations = [merge.operation(*pair) for pair in zip(one.calls, other.calls, strict=True)]
    if id(one.result) not in one.keys:
        raise OnnxError("it does not depend on the rows")
    return Recording(inputs, operations, merge.variable(one.result, other.result))


@dataclass(frozen=True)
class _Call:
    name: str
    args: dict[str, Any]
    outputs: list[Tensor]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Record of one run, on real numbers."""

    def __init__(self, function: Callable[..., Tensor], dims: Sequence[int], rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.calls: list[_Call] = []
        generator = torch.Generator().manual_seed(0)
        self.inputs = [
            torch.rand(rows, dim, generator=generator, dtype=torch.float64) for dim in dims
        ]
        self.keys = {id(table): number for number, table in enumerate(self.inputs)}
        with torch.no_grad(), self:
            self.result: Tensor = functionalize(function)(*self.inputs)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch gives it no public type
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  as above
        given = kwargs or {}
        outputs = func(*args, **given)
        if not any(id(tensor) in self.keys for tensor in _tensors((args, given))):
            return outputs
        name = f"{func._schema.name.removeprefix('aten::')}.{func._overloadname}"
        if name.split(".", maxsplit=1)[0] in _READS:
            raise OnnxError("its operations depend on the values of the rows")
        if len(self.calls) == MOST_OPERATIONS:
            raise OnnxError(f"it takes more than {MOST_OPERATIONS:,} operations")
        made = list(_tensors(outputs))
        for tensor in made:
            self.keys.setdefault(id(tensor), len(self.keys))
        self.calls.append(_Call(name, _named(func, args, given), made))
        return outputs


def _named(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return all arguments of a call by their names."""
    schema = func._schema.arguments
    found = {argument.name: argument.default_value for argument in schema}
    found.update(zip((argument.name for argument in schema), args, strict=False))
    return found | kwargs


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401  nested at will
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


class _Merge:
    """The two records as one, in which sizes that differ are multiples of the batch."""

    def __init__(self, one: _Recorder, other: _Recorder) -> None:
        self._one, self._other = one, other

    def operation(self, one: _Call, other: _Call) -> Operation:
        if one.name != other.name or len(one.outputs) != len(other.outputs):
            raise OnnxError("its operations depend on the number of rows")
        args = {name: self._value(value, other.args[name]) for name, value in one.args.items()}
        pairs = zip(one.outputs, other.outputs, strict=True)
        return Operation(one.name, args, [self.variable(*pair) for pair in pairs])

    def variable(self, one: Tensor, other: Tensor) -> Variable:
        key = self._one.keys[id(one)]
        if key != self._other.keys.get(id(other)):
            raise OnnxError("its operations depend on the number of rows")
        return Variable(key, one.dtype, tuple(map(_size, one.shape, other.shape)))

    def _value(self, one: Any, other: Any) -> Any:  # noqa: ANN401  nested at will
        if isinstance(one, Tensor):
            if id(one) in self._one.keys:
                return self.variable(one, other)
            return one if one is other else _constant(one, other)
        if isinstance(one, list | tuple):
            return [self._value(*pair) for pair in zip(one, other, strict=True)]
        if isinstance(one, int) and not isinstance(one, bool):
            return _size(one, other)
        if one != other:
            raise OnnxError("a number of it depends on the number of rows")
        return one


def _constant(one: Tensor, other: Tensor) -> "Tensor | Repeated":
    """Return a constant, of which only one row is kept if its rows are equal."""
    shape = tuple(map(_size, one.shape, other.shape))
    for axis, size in enumerate(shape):
        if isinstance(size, Batch):
            one, other = one.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
    if one.shape != other.shape or not torch.allclose(one, other, rtol=0, atol=0, equal_nan=True):
        raise OnnxError("a constant of it depends on the number of rows")
    return one if shape == tuple(one.shape) else Repeated(one, shape)


def _size(one: int, other: int) -> Size:
    if one == other:
        return one
    factor, rest = divmod(one, _BATCHES[0])
    if rest or factor * _BATCHES[1] != other:
        raise OnnxError("a size of it is no multiple of the number of rows")
    return Batch(factor)
