"""Recipes of continuous data, and of pictures."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from experiments.recipes.published import PUBLISHED
from experiments.recipes.recipe import DensityRecipe, Recipe, early_stopping
from flows import (
    BatchNormSpec,
    FitOptions,
    FlowSpec,
    HafSpec,
    MadeSpec,
    MafSpec,
    NsfSpec,
    PreprocessingSpec,
    RealNvpSpec,
)


def _five_layers(
    hidden: int, haf: tuple[int, ...], *, masked_hidden_layers: int
) -> Iterator[tuple[str, FlowSpec, float]]:
    """Yield the flows of Papamakarios et al. 2017: their names, specs and learning rates."""
    norm, masked = BatchNormSpec(), [hidden] * masked_hidden_layers
    yield "made-gaussian", MadeSpec(hidden=masked, activation="relu"), 1e-3
    yield "realnvp", RealNvpSpec(layers=5, hidden=[hidden], batch_norm=norm), 1e-4
    yield "maf", MafSpec(layers=5, hidden=masked, batch_norm=norm, activation="relu"), 1e-4
    for units in haf:
        spec = HafSpec(layers=5, hidden=[units], batch_norm=norm, activation="relu")
        yield f"haf-{units}", spec, 1e-4


_TITLES = {"made-gaussian": "Gaussian MADE", "realnvp": "Real NVP (5)", "maf": "MAF (5)"}

# Bound of log scales, as zuko has it.
_SCALE_BOUND = 6.9

_PAPERS: dict[str, Any] = {"weight_decay": 1e-6, "batch_size": 100}

# Data sets with a million rows: by the papers' rule a processor would take a day for each flow.
_SHORTENED = FitOptions(
    learning_rate=3e-3,
    weight_decay=1e-6,
    batch_size=500,
    schedule="cosine",
    max_epochs=12,
    patience=None,
)
_SHORTENED_EPOCHS = {"bsds300-made-gaussian": 40, "bsds300-maf": 24, "bsds300-nsf": 25}


def _shortened(name: str, **changes: Any) -> tuple[FitOptions, str]:  # noqa: ANN401  fields of many types
    """Return options, and a remark on them."""
    epochs = _SHORTENED_EPOCHS.get(name, _SHORTENED.max_epochs)
    options = dataclasses.replace(_SHORTENED, max_epochs=epochs, **changes)
    remark = f"{epochs} epochs of batches of 500 and a rate that falls from {options.learning_rate}"
    if not name.endswith("nsf"):
        remark += ", the paper's were of 100 at 0.0001 until nothing was better for 30 epochs"
    return options, remark


_AVERAGED: dict[str, dict[str, Any]] = {
    "mnist-maf": {"weight_decay": 1.0, "max_epochs": 40},
    "mnist-realnvp": {"weight_decay": 4.0, "max_epochs": 25},
}


def _options(name: str, data: str, rate: float) -> tuple[FitOptions, str]:
    """Return the training options of a flow of Papamakarios et al. 2017, and a remark on them."""
    if data == "bsds300":
        return _shortened(name)
    if name in _AVERAGED:
        # Adam moves the weights of pixels that hardly ever change as far as any others, at random:
        # without decay and average, single pictures cost up to millions of nats.
        averaged = early_stopping(
            "adamw",
            rate,
            batch_size=100,
            weight_average=0.999,
            patience=10,
            **_AVERAGED[name],
        )
        remark = "weights decay and are averaged, which the paper's were not"
        if name == "mnist-realnvp":
            remark += (
                "; with a weight decay of 1.0 instead of 4.0, one test picture cost 21 million nats"
            )
        return averaged, remark
    if name.startswith("mnist-haf"):
        remark = "trained as `mnist-maf-as-published`, which it is to be compared with"
        if name == "mnist-haf-700":
            options = early_stopping("adam", rate, **_PAPERS, patience=10)
            return options, f"patience of 10 epochs; else {remark}"
        return early_stopping("adam", rate, **_PAPERS), remark
    return early_stopping("adam", rate, **_PAPERS), ""


def continuous() -> Iterator[Recipe]:
    """Yield the recipes of continuous data."""
    logit = PreprocessingSpec(levels=256, logit=1e-6)
    for data, hidden, haf, preprocessing in (
        ("mnist", 1024, (550, 700), logit),
        ("hepmass", 512, (256, 350), PreprocessingSpec()),
        ("bsds300", 512, (350,), PreprocessingSpec()),
        ("power", 100, (), PreprocessingSpec()),
        ("gas", 100, (), PreprocessingSpec()),
        ("miniboone", 512, (), PreprocessingSpec()),
    ):
        # The paper took the better of one and two hidden layers.
        masked_hidden_layers = 2 if data == "bsds300" else 1
        flows = _five_layers(hidden, haf, masked_hidden_layers=masked_hidden_layers)
        for family, spec, rate in flows:
            name = f"{data}-{family}"
            options, remark = _options(name, data, rate)
            yield DensityRecipe(
                name,
                f"{_TITLES.get(family, f'HAF (5), {family[4:]} units')} on {data}",
                data,
                spec,
                options,
                preprocessing,
                published=PUBLISHED.get(name, ()),
                remark=remark,
            )
    for family, spec, rate in _five_layers(1024, (), masked_hidden_layers=1):
        if f"mnist-{family}" in _AVERAGED:
            yield DensityRecipe(
                f"mnist-{family}-as-published",
                f"{_TITLES[family]} on mnist, trained as in the paper",
                "mnist",
                spec,
                early_stopping("adam", rate, **_PAPERS),
                logit,
                published=PUBLISHED[f"mnist-{family}"],
            )
    yield from _bounded(logit)
    options, remark = _shortened("bsds300-nsf", max_gradient_norm=5.0)
    yield DensityRecipe(
        "bsds300-nsf",
        "Neural spline flow (5), autoregressive, on bsds300",
        "bsds300",
        NsfSpec(layers=5, hidden=[512], linear=True, activation="relu"),
        options,
        # Splines bend within five deviations; a pixel's, minus the mean, is 0.1.
        standardise=True,
        published=PUBLISHED["bsds300-nsf"],
        remark=f"{remark}; the paper's networks are residual",
    )


def _bounded(preprocessing: PreprocessingSpec) -> Iterator[Recipe]:
    """Yield recipes of pictures whose log scales are bounded, so that few samples run away."""
    names = {"maf": "mnist-maf", "realnvp": "mnist-realnvp", "haf-550": "mnist-maf"}
    for family, spec, rate in _five_layers(1024, (550,), masked_hidden_layers=1):
        if family in names and isinstance(spec, HafSpec | MafSpec | RealNvpSpec):
            options, remark = _options(names[family], "mnist", rate)
            yield DensityRecipe(
                f"mnist-{family}-bounded",
                f"{_TITLES.get(family, 'HAF (5), 550 units')} on mnist, log scales bounded",
                "mnist",
                dataclasses.replace(spec, log_scale_bound=_SCALE_BOUND),
                options,
                preprocessing,
                published=PUBLISHED[f"mnist-{family}"],
                remark=remark,
            )


def pictures() -> Iterator[Recipe]:
    """Yield the recipes of pictures in the plane."""
    running = BatchNormSpec(statistics="running", momentum=0.9)
    yield DensityRecipe(
        "moons-realnvp",
        "Real NVP, 32 layers, on two moons",
        "moons",
        RealNvpSpec(layers=32, hidden=[200], batch_norm=running),
        FitOptions(learning_rate=2e-4, batch_size=256, max_epochs=300, patience=None),
    )
    yield DensityRecipe(
        "picture-realnvp",
        "Real NVP, 48 layers, on the pixels of a picture",
        "picture",
        RealNvpSpec(layers=48, hidden=[200], batch_norm=running),
        FitOptions(
            learning_rate=1e-3,
            max_gradient_norm=10.0,
            batch_size=256,
            max_epochs=300,
            patience=None,
            schedule="cosine",
        ),
    )
