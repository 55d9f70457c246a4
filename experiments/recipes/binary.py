"""Recipes of binary data."""

from collections.abc import Iterator
from typing import Any

from experiments.recipes.published import GERMAIN, THESIS
from experiments.recipes.recipe import DensityRecipe, Published, Recipe, early_stopping
from flows import (
    FitOptions,
    MadeSpec,
    StepSchedule,
)


def _binary_made(units: int, **fields: Any) -> MadeSpec:  # noqa: ANN401  fields of many types
    return MadeSpec(conditional="bernoulli", hidden=[units], activation="relu", **fields)


_KNOWN_MASKS: dict[str, Any] = {"order": "random", "direct": True, "mask_weights": True}


def binary() -> Iterator[Recipe]:
    """Yield the recipes of binary data."""
    yield DensityRecipe(
        "mnist-made-bernoulli-500",
        "Bernoulli MADE, 500 units, random order, on binarised MNIST",
        "binarized_mnist",
        _binary_made(500, order="random"),
        early_stopping("adam", 1e-3, batch_size=128, schedule=StepSchedule(epochs=50, factor=0.1)),
        published=(Published(-94.70, GERMAIN), Published(-93.93, THESIS)),
    )
    yield DensityRecipe(
        "mnist-made-bernoulli-500-masks-32",
        "Bernoulli MADE, 500 units, direct connections, 32 masks that the units know, on binarised MNIST",
        "binarized_mnist",
        _binary_made(500, masks=32, **_KNOWN_MASKS),
        FitOptions(
            learning_rate=1e-3, batch_size=128, schedule="cosine", max_epochs=60, patience=None
        ),
        remark="one mask: `mnist-made-bernoulli-500`",
    )
    yield DensityRecipe(
        "mnist-made-bernoulli-8000",
        "Bernoulli MADE, 8000 units, natural order, on binarised MNIST",
        "binarized_mnist",
        _binary_made(8000),
        early_stopping("adam", 3e-4, batch_size=128, weight_average=0.999, patience=10),
        published=(Published(-88.40, GERMAIN), Published(-88.40, THESIS)),
    )
    yield from _small_binary()


def _small_binary() -> Iterator[Recipe]:
    """Yield the recipes of 1000 to 2000 rows, their settings chosen on the validation rows.

    One mask needs weight decay. With several, plain gradient descent at a high rate gave better
    averages than Adam or Adagrad. An epoch has 14 or 20 batches and sees as many of the masks, so
    that patience must outlast several rounds of all of them.
    """
    yield DensityRecipe(
        "dna-made",
        "Bernoulli MADE, 500 units, on dna",
        "dna",
        _binary_made(500, order="random"),
        early_stopping("adam", 1e-3, weight_decay=0.02),
        published=(Published(-83.63, GERMAIN),),
    )
    yield DensityRecipe(
        "dna-made-masks",
        "Bernoulli MADE, 200 units, direct connections, 256 masks that the units know, on dna",
        "dna",
        _binary_made(200, masks=256, **_KNOWN_MASKS),
        early_stopping("sgd", 0.5, patience=100),
        published=(Published(-79.66, GERMAIN),),
    )
    yield DensityRecipe(
        "mushrooms-made",
        "Bernoulli MADE, 2000 units, on mushrooms",
        "mushrooms",
        MadeSpec(conditional="bernoulli", hidden=[2000], order="random", activation="gelu"),
        early_stopping("adam", 2e-4, weight_decay=3e-4, max_epochs=2000),
        published=(Published(-9.68, GERMAIN),),
    )
    yield DensityRecipe(
        "mushrooms-made-masks",
        "Bernoulli MADE, 500 units, direct connections, 16 masks that the units know, on mushrooms",
        "mushrooms",
        _binary_made(500, masks=16, **_KNOWN_MASKS),
        early_stopping("sgd", 0.3, patience=100, max_epochs=2000),
        published=(Published(-9.69, GERMAIN),),
    )
