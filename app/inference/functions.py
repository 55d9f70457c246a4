"""Functions of a model as the Open Inference Protocol sees them: a model each, with its tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.inference.tensors import ROWS
from app.inference.views import TensorMetadata
from app.rows.model_types import types_of
from app.rows.shape import Floats
from app.scoring.functions import HeldOutRows, log_prob_alone, noise_of, score_alone
from app.scoring.request import RowFunction
from models_store.records import Version

N, SEED, CONTEXT = "n", "seed", "context"
"""Names of the tensors of a request for samples."""

SAMPLE = "sample"


class Served(NamedTuple):
    """Function of a version, with the name that the protocol has for it in the path."""

    name: str
    version: Version
    function: str


@dataclass(frozen=True)
class Function:
    """Function of rows.

    Args:
        of: Maker of the function for a version.
        outputs: Columns of its results that make each output, by the name of the output; -1 stands
            for as many as the model has.
    """

    of: Callable[[Version], RowFunction]
    outputs: Mapping[str, int]

    def split(self, values: Floats) -> dict[str, Floats]:
        """Return the results of rows, by the names of the outputs."""
        rest = values.shape[1] - sum(width for width in self.outputs.values() if width > 0)
        found: dict[str, Floats] = {}
        place = 0
        for name, width in self.outputs.items():
            stop = place + (width if width > 0 else rest)
            found[name] = values[:, place] if width > 0 else values[:, place:stop]
            place = stop
        return found


FUNCTIONS: dict[str, Function] = {
    "log_prob": Function(lambda _: log_prob_alone("data"), {"log_prob": 1}),
    "score": Function(lambda v: score_alone(HeldOutRows.of(v)), {"log_prob": 1, "quantile": 1}),
    "inverse": Function(lambda v: noise_of(v.columns, "data"), {"noise": -1, "log_det": 1}),
}
"""Functions of rows by their names; the first one is that of a model's name alone."""

_NAMES = (*FUNCTIONS, SAMPLE)


def named_function(name: str) -> tuple[str, str]:
    """Return the reference to a model and the name of a function, of `reference` or `reference:function`.

    Args:
        name: Name of a model in the protocol.
    """
    ref, _, function = name.rpartition(":")
    return (ref, function) if function in _NAMES else (name, _NAMES[0])


def input_tensors(version: Version, function: str) -> list[TensorMetadata]:
    """Return the tensors that a function of a model takes."""
    typed = types_of(version) is not None
    context = len(version.context_columns)
    if function == SAMPLE:
        given = [_tensor(CONTEXT, [-1, context], is_text=typed)] if context else []
        return [_whole(N), _whole(SEED), *given]
    return [_tensor(ROWS, [-1, len(version.columns) + context], is_text=typed)]


def output_tensors(version: Version, function: str) -> list[TensorMetadata]:
    """Return the tensors that a function of a model gives."""
    width = len(version.columns)
    if function == SAMPLE:
        return [_tensor(ROWS, [-1, width], is_text=types_of(version) is not None)]
    return [
        _tensor(name, [-1] if columns > 0 else [-1, width], is_text=False)
        for name, columns in FUNCTIONS[function].outputs.items()
    ]


def output_names(function: str) -> Sequence[str]:
    """Return the names of the tensors that a function gives."""
    return [ROWS] if function == SAMPLE else list(FUNCTIONS[function].outputs)


def _tensor(name: str, shape: list[int], *, is_text: bool) -> TensorMetadata:
    return TensorMetadata(name=name, datatype="BYTES" if is_text else "FP64", shape=shape)


def _whole(name: str) -> TensorMetadata:
    return TensorMetadata(name=name, datatype="INT64", shape=[1])
