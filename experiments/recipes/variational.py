"""Recipes of variational inference towards potentials."""

import dataclasses
from collections.abc import Iterator

from experiments.recipes.recipe import Recipe, VariationalRecipe
from flows import (
    IafSpec,
    PlanarSpec,
    VariationalOptions,
)


def variational() -> Iterator[Recipe]:
    """Yield the recipes of variational inference."""
    yield _planar("u1", 32, 6e-4, 25_000)
    yield _planar("u2", 32, 6e-4, 25_000)
    shortened = "the thesis took 1,000,000 iterations"
    yield dataclasses.replace(_planar("u3", 32, 7.5e-4, 300_000), remark=shortened)
    yield _planar("u4", 32, 6e-4, 125_000)
    for layers in (2, 4, 8, 16):
        yield _planar("u5", layers, 6e-4, 25_000, suffix=f"-k{layers}")
    for name in ("u1", "u2", "u3", "u4", "u5"):
        yield VariationalRecipe(
            f"iaf-{name}",
            f"Inverse autoregressive flow, 8 layers, towards {name.upper()}",
            name.upper(),
            IafSpec(layers=8, hidden=[64], batch_norm=None),
            VariationalOptions(learning_rate=1e-3, schedule="cosine", iterations=50_000),
        )


def _planar(
    name: str, layers: int, rate: float, iterations: int, *, suffix: str = ""
) -> VariationalRecipe:
    return VariationalRecipe(
        f"planar-{name}{suffix}",
        f"Planar flow, {layers} layers, towards {name.upper()}",
        name.upper(),
        PlanarSpec(layers=layers, closed="sampling"),
        VariationalOptions(
            learning_rate=rate, batch_size=128, iterations=iterations, annealing=5_000
        ),
    )
