"""Functions of rows that the routes compute."""

import numpy as np

from app.rows.answer_table import Part
from app.rows.shape import Floats
from app.scoring.request import RowFunction, Space
from flows import CompiledFlow

PARTS = ["discrete", "continuous"]
"""Names of the parts of a log density."""


def log_prob_alone(space: Space) -> RowFunction:
    """Return the function that computes log densities."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats]:
        return (flow.log_prob(rows, space=space),)

    return RowFunction("log_prob", compute, ["log_prob"], [Part("log_prob", 0, None)])


def log_prob_parts(space: Space) -> RowFunction:
    """Return the function that computes log densities and their discrete and continuous parts."""

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, Floats]:
        if flow.has_parts:
            parts = flow.log_prob_parts(rows, space=space)
            return parts.sum(axis=1), parts
        log_prob = flow.log_prob(rows, space=space)
        return log_prob, np.column_stack([np.where(np.isnan(log_prob), np.nan, 0.0), log_prob])

    names = ["log_prob", *PARTS]
    members = [Part(name, place, None) for place, name in enumerate(names)]
    return RowFunction("log_prob_parts", compute, names, members, checked=1)
