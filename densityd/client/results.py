"""Results of calls of a model: densities and transforms of rows, whole and in parts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from densityd.client.call import parse_json
from densityd.client.errors import UnexpectedAnswerError
from densityd.client.wire.arrays import Floats

_REASONS = 3
_TOLD_NATS = 1.0  # below the usual, from which on a column is a reason
_Columns = TypeVar("_Columns", "Conditionals", "Explained")


class Transformed(NamedTuple):
    """Transformed rows, and the log determinant of the transform at each."""

    rows: Floats
    log_det: Floats


class Estimates(NamedTuple):
    """Log densities of some columns given others.

    Attributes:
        log_prob: Log density of each row, in nats.
        standard_error: Its standard error; 0 where it is exact.
        effective_samples: Effective number of draws behind it; NaN where it is exact.
        pareto_k: Shape of the tail of their weights: below 0.7 the standard error can be trusted.
        uncertain: 1 where the quality that is aimed at was not reached, else 0.
    """

    log_prob: Floats
    standard_error: Floats
    effective_samples: Floats
    pareto_k: Floats
    uncertain: Floats


class Scores(NamedTuple):
    """Log densities, and the rank of each among rows that the model was not trained on.

    The rank is (k + 1) / (n + 1), where k of these n rows are at most as likely. The version's `held_out` says
    how many they are, and whether they are validation rows, which chose the epoch.

    Attributes:
        quantile: Rank of each row, up to 1.
        warnings: Sentences about the rows, such as levels that training never saw.
    """

    log_prob: Floats
    quantile: Floats
    warnings: Sequence[str] = ()


class Parts(NamedTuple):
    """Log densities as the sum of two parts.

    Attributes:
        discrete: Log probability of its discrete cells: levels, gaps, and values that hold a share.
        continuous: Log density of its other cells given the discrete ones.
    """

    log_prob: Floats
    discrete: Floats
    continuous: Floats


class Conditionals(NamedTuple):
    """Log densities of rows, and those of single columns given the columns before them.

    Attributes:
        columns: By column, the log density of its cell given those of the columns before it in
            `order`; those of a row sum to its log density.
        means: By column, its mean given the cells of the columns before it; NaN where there is no
            closed form of it, and for levels.
        order: Columns in the order in which each is given those before it.
    """

    log_prob: Floats
    columns: dict[str, Floats]
    means: dict[str, Floats]
    order: list[str]


class Evidence(NamedTuple):
    """Lower bounds of the log evidence of rows under a model with latent variables, in nats.

    Attributes:
        log_evidence: Importance-weighted bound of each row, which is at least as tight.
    """

    elbo: Floats
    log_evidence: Floats


class Explained(NamedTuple):
    """Scores of rows, and the contribution of each column to them.

    Attributes:
        quantile: Rank of each row among rows that the model was not trained on.
        columns: By column, the log density of its cell given the others of the row; NaN where the
            model cannot tell.
        kinds: By column, `exact`, `learnt` (a model trained with `missing="any"`) or `unavailable`.
        usual: By column, the usual one of these log densities; not-a-number where it is not known.
        differences: By column, the distance from the usual one. What is furthest below 0 makes a row
            unlikely.
    """

    log_prob: Floats
    quantile: Floats
    columns: dict[str, Floats]
    kinds: dict[str, str]
    usual: dict[str, float]
    differences: dict[str, Floats]

    def reasons(self, row: int) -> dict[str, float]:
        """Return the differences of a row by column, the one that makes it most unlikely first."""
        found = {name: float(values[row]) for name, values in self.differences.items()}
        known = {name: value for name, value in found.items() if not np.isnan(value)}
        return dict(sorted(known.items(), key=lambda item: item[1]))

    def describe(self, row: int) -> str:
        """Return the columns that make a row unlikely, the worst first, as `Total ($) -18.5; Units -12.0`.

        These are at most three, each with the nats by which its cell is less likely than usual, at least one.
        """
        worst = [(name, nats) for name, nats in self.reasons(row).items() if nats <= -_TOLD_NATS]
        return "; ".join(f"{name} {nats:.1f}" for name, nats in worst[:_REASONS])


def count_rows(chunk: object) -> int:
    """Return the number of rows of a result, whatever its form."""
    values: Any = chunk[0] if isinstance(chunk, tuple) else chunk
    return len(values)


def joined(chunks: Sequence[_Columns]) -> _Columns:
    """Join the results of several calls: arrays row by row; what is about the model is the first's."""
    return type(chunks[0])(*map(_joined, zip(*chunks, strict=True)))


def _joined(values: Sequence[Any]) -> Any:  # noqa: ANN401 - of a field of either
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, dict) and any(isinstance(one, np.ndarray) for one in first.values()):
        return {name: np.concatenate([value[name] for value in values]) for name in first}
    return first


def read_conditionals(content: bytes) -> Conditionals:
    """Return the densities of columns of a JSON response.

    Raises:
        UnexpectedAnswerError: It has none.
    """
    found: Any = parse_json(content)
    try:
        return Conditionals(
            _to_floats(found["log_prob"]),
            _by_column(found["conditional"]),
            _by_column(found["mean"]),
            found["order"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswerError("the response has no conditional densities") from error


def read_explained(content: bytes) -> Explained:
    """Return the explanations of a JSON response.

    Raises:
        UnexpectedAnswerError: It has none.
    """
    found: Any = parse_json(content)
    try:
        usual: Mapping[str, float | None] = found["usual"]
        return Explained(
            _to_floats(found["log_prob"]),
            _to_floats(found["quantile"]),
            _by_column(found["explanation"]),
            found.get("explained", {}),
            {name: float("nan") if term is None else term for name, term in usual.items()},
            _by_column(found["difference"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswerError("the response has no explanation") from error


def _by_column(rows: Sequence[Mapping[str, object]]) -> dict[str, Floats]:
    """Return the numbers of each column, from an object for each row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _to_floats([row.get(name) for row in rows]) for name in names}


def _to_floats(values: object) -> Floats:
    return np.array(values, dtype=np.float64)
