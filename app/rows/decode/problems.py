"""Problems of tables, in the words of a batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from app.problems.fields import field_error
from app.problems.problem import Problem
from tabular.errors import TableError
from tabular.slugs import Slug

# What is wrong with a table is said in the words of a batch. Other slugs are the same for both.
_SLUGS: dict[Slug, Slug] = {
    "column-name": "columns-mismatch",
    "dataset-duplicate-columns": "columns-mismatch",
    "dataset-dtype": "batch-value",
    "dataset-empty": "batch-empty",
    "dataset-encoding": "array-parse",
    "dataset-nonfinite": "value-nonfinite",
    "dataset-parse": "array-parse",
    "dataset-pickle-forbidden": "array-dtype",
    "dataset-shape": "batch-shape",
    "dataset-too-large": "limit-decoded-bytes",
    "dataset-truncated": "array-parse",
}
NPY_SLUGS: dict[Slug, Slug] = _SLUGS | {"dataset-dtype": "array-dtype"}


@contextmanager
def as_problem(
    slugs: Mapping[Slug, Slug] = _SLUGS, *, root: Sequence[str] = (), places: Sequence[str] = ()
) -> Iterator[None]:
    """Say what is wrong with a table in the words of a batch.

    Args:
        slugs: Types of problems by those of tables, where the two differ.
        root: Place of the rows in the body.
        places: Names of columns that rows give by their place; empty: rows name them.
    """
    try:
        yield
    except TableError as error:
        errors = []
        if error.row is not None:
            column = [places.index(name) if places else name for name in [error.column] if name]
            errors = [field_error(error.detail, *root, error.row - 1, *column)]
        members = {"column": error.column, "row": error.row}
        slug = slugs.get(error.slug, error.slug)
        raise Problem(slug, error.told, errors=errors, members=members) from error
