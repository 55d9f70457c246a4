"""Recipes of all experiments: data, flow, training options and published results."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flows import (
    BatchNormSpec,
    FitOptions,
    FlowSpec,
    HafSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    NsfSpec,
    PlanarSpec,
    PreprocessingSpec,
    RealNvpSpec,
    StepSchedule,
    VariationalOptions,
    spec_to_dict,
)
from flows.training.options import Optimiser

_GERMAIN = "Germain et al. 2015"
_PAPAMAKARIOS = "Papamakarios et al. 2017"
_DURKAN = "Durkan et al. 2019"
_THESIS = "the thesis that introduced the HAF"


@dataclass(frozen=True)
class Published:
    """Result of the literature, as a mean test log-likelihood in nats.

    Attributes:
        value: Published value; higher is better.
        two_standard_errors: Two standard errors; None if none were given.
        source: Place of publication.
    """

    value: float
    source: str
    two_standard_errors: float | None = None


@dataclass(frozen=True)
class DensityRecipe:
    """Recipe of maximum likelihood training on a table.

    Attributes:
        name: Name of the experiment.
        title: Title for people.
        data: Name of a data set (`experiments.data.catalogue`).
        flow: Specification of the flow.
        options: Training options; the seed is the run's.
        preprocessing: Preprocessing layers. Likelihoods are those of the preprocessed rows, as
            published.
        standardise: True to standardise by the training rows after that; likelihoods are those
            before it.
        published: Published results, if there are any.
        remark: Remark for readers of the result.
    """

    name: str
    title: str
    data: str
    flow: FlowSpec
    options: FitOptions
    preprocessing: PreprocessingSpec = field(default_factory=PreprocessingSpec)
    standardise: bool = False
    published: tuple[Published, ...] = ()
    remark: str = ""

    def in_mixed_precision(self) -> "DensityRecipe":
        """Return the same recipe with training steps in mixed precision."""
        options = dataclasses.replace(self.options, mixed_precision=True)
        return dataclasses.replace(self, options=options)

    def request(self, dataset_id: str, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/training`, for a dataset of the rows."""
        options, levels, margin = self.options, self.preprocessing.levels, self.preprocessing.logit
        schedule: Any = options.schedule
        if isinstance(schedule, StepSchedule):
            schedule = {"step": dataclasses.asdict(schedule)}
        return {
            "model_name": self.name,
            "dataset_id": dataset_id,
            "preprocessing": {
                "standardise": self.standardise,
                "dequantise": None if levels is None else {"levels": levels},
                "logit": None if margin is None else {"lambda": margin},
            },
            "flow": spec_to_dict(self.flow),
            "optimisation": {
                "optimiser": options.optimiser,
                "learning_rate": options.learning_rate,
                "weight_decay": options.weight_decay,
                "max_gradient_norm": options.max_gradient_norm or "none",
                "batch_size": options.batch_size,
                "max_epochs": options.max_epochs,
                "patience": options.patience or options.max_epochs,
                "schedule": schedule,
                "robust": False,
                "weight_average": options.weight_average,
                "mixed_precision": options.mixed_precision,
                "seed": seed,
            },
        }


@dataclass(frozen=True)
class VariationalRecipe:
    """Recipe of maximising the ELBO towards a potential (Rezende and Mohamed 2015, section 6.1).

    Attributes:
        name: Name of the experiment.
        title: Title for people.
        potential: Name of the potential, U1 to U5.
        flow: Specification of the flow.
        options: Training options; the seed is the run's.
        remark: Remark for readers of the result.
    """

    name: str
    title: str
    potential: str
    flow: FlowSpec
    options: VariationalOptions
    remark: str = ""

    def request(self, *, seed: int) -> dict[str, Any]:
        """Return the recipe as the body of `POST /v1/jobs/variational`."""
        options = self.options
        return {
            "model_name": self.name,
            "target": {"potential": self.potential},
            "flow": spec_to_dict(self.flow),
            "optimisation": {
                "optimiser": options.optimiser,
                "learning_rate": options.learning_rate,
                "schedule": options.schedule,
                "max_gradient_norm": options.max_gradient_norm or "none",
                "batch_size": options.batch_size,
                "iterations": options.iterations,
                "report_every": options.report_every,
                "annealing": options.annealing,
                "patience": options.patience,
                "max_seconds": options.max_seconds,
                "seed": seed,
            },
        }


Recipe = DensityRecipe | VariationalRecipe


def _early(optimiser: Optimiser, rate: float, **changes: Any) -> FitOptions:  # noqa: ANN401  fields of many types
    """Return early stopping with patience 30 on the validation likelihood, as in the papers."""
    return FitOptions(optimiser=optimiser, learning_rate=rate, **({"patience": 30} | changes))


def _binary_made(units: int, **fields: Any) -> MadeSpec:  # noqa: ANN401  fields of many types
    return MadeSpec(conditional="bernoulli", hidden=[units], activation="relu", **fields)


_KNOWN_MASKS: dict[str, Any] = {"order": "random", "direct": True, "mask_weights": True}


def _binary() -> Iterator[Recipe]:
    yield DensityRecipe(
        "mnist-made-bernoulli-500",
        "Bernoulli MADE, 500 units, random order, on binarised MNIST",
        "binarized_mnist",
        _binary_made(500, order="random"),
        _early("adam", 1e-3, batch_size=128, schedule=StepSchedule(epochs=50, factor=0.1)),
        published=(Published(-94.70, _GERMAIN), Published(-93.93, _THESIS)),
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
        _early("adam", 3e-4, batch_size=128, weight_average=0.999, patience=10),
        published=(Published(-88.40, _GERMAIN), Published(-88.40, _THESIS)),
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
        _early("adam", 1e-3, weight_decay=0.02),
        published=(Published(-83.63, _GERMAIN),),
    )
    yield DensityRecipe(
        "dna-made-masks",
        "Bernoulli MADE, 200 units, direct connections, 256 masks that the units know, on dna",
        "dna",
        _binary_made(200, masks=256, **_KNOWN_MASKS),
        _early("sgd", 0.5, patience=100),
        published=(Published(-79.66, _GERMAIN),),
    )
    yield DensityRecipe(
        "mushrooms-made",
        "Bernoulli MADE, 2000 units, on mushrooms",
        "mushrooms",
        MadeSpec(conditional="bernoulli", hidden=[2000], order="random", activation="gelu"),
        _early("adam", 2e-4, weight_decay=3e-4, max_epochs=2000),
        published=(Published(-9.68, _GERMAIN),),
    )
    yield DensityRecipe(
        "mushrooms-made-masks",
        "Bernoulli MADE, 500 units, direct connections, 16 masks that the units know, on mushrooms",
        "mushrooms",
        _binary_made(500, masks=16, **_KNOWN_MASKS),
        _early("sgd", 0.3, patience=100, max_epochs=2000),
        published=(Published(-9.69, _GERMAIN),),
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

_PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mnist-made-gaussian": (
        Published(-1380.8, _PAPAMAKARIOS, 4.8),
        Published(-1379.97, _THESIS, 1.79),
    ),
    "mnist-realnvp": (
        Published(-1323.2, _PAPAMAKARIOS, 6.6),
        Published(-1310.13, _THESIS, 4.54),
    ),
    "mnist-maf": (Published(-1300.5, _PAPAMAKARIOS, 1.7), Published(-1296.09, _THESIS, 3.62)),
    "mnist-haf-550": (Published(-1292.91, _THESIS, 2.57),),
    "mnist-haf-700": (Published(-1297.64, _THESIS, 4.14),),
    "hepmass-made-gaussian": (
        Published(-20.98, _PAPAMAKARIOS, 0.02),
        Published(-22.40, _THESIS, 0.05),
    ),
    "hepmass-realnvp": (
        Published(-19.62, _PAPAMAKARIOS, 0.02),
        Published(-17.80, _THESIS, 0.05),
    ),
    "hepmass-maf": (Published(-17.70, _PAPAMAKARIOS, 0.02), Published(-18.80, _THESIS, 0.07)),
    "hepmass-haf-256": (Published(-19.18, _THESIS, 0.04),),
    "hepmass-haf-350": (Published(-19.64, _THESIS, 0.05),),
    "bsds300-made-gaussian": (Published(148.85, _PAPAMAKARIOS),),
    "bsds300-realnvp": (Published(152.97, _PAPAMAKARIOS),),
    "bsds300-maf": (Published(155.69, _PAPAMAKARIOS),),
    "bsds300-nsf": (Published(157.31, _DURKAN),),
    "power-made-gaussian": (Published(-3.08, _PAPAMAKARIOS),),
    "power-realnvp": (Published(-0.02, _PAPAMAKARIOS),),
    "power-maf": (Published(0.14, _PAPAMAKARIOS),),
    "gas-made-gaussian": (Published(3.56, _PAPAMAKARIOS),),
    "gas-realnvp": (Published(4.78, _PAPAMAKARIOS),),
    "gas-maf": (Published(9.07, _PAPAMAKARIOS),),
    "miniboone-made-gaussian": (Published(-15.59, _PAPAMAKARIOS),),
    "miniboone-realnvp": (Published(-13.55, _PAPAMAKARIOS),),
    "miniboone-maf": (Published(-11.75, _PAPAMAKARIOS),),
}


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
        averaged = _early(
            "adamw",
            rate,
            batch_size=100,
            weight_average=0.999,
            patience=10,
            **_AVERAGED[name],
        )
        remark = "weights decay and are averaged, which the paper's were not"
        if name == "mnist-realnvp":
            remark += "; by 1.0 instead of 4.0 one test picture cost 21 million nats"
        return averaged, remark
    if name == "mnist-haf-700":
        return _early("adam", rate, **_PAPERS, patience=10), "patience of 10 epochs"
    return _early("adam", rate, **_PAPERS), ""


def _continuous() -> Iterator[Recipe]:
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
                published=_PUBLISHED.get(name, ()),
                remark=remark,
            )
    for family, spec, rate in _five_layers(1024, (), masked_hidden_layers=1):
        if f"mnist-{family}" in _AVERAGED:
            yield DensityRecipe(
                f"mnist-{family}-as-published",
                f"{_TITLES[family]} on mnist, trained as in the paper",
                "mnist",
                spec,
                _early("adam", rate, **_PAPERS),
                logit,
                published=_PUBLISHED[f"mnist-{family}"],
            )
    options, remark = _shortened("bsds300-nsf", max_gradient_norm=5.0)
    yield DensityRecipe(
        "bsds300-nsf",
        "Neural spline flow (5), autoregressive, on bsds300",
        "bsds300",
        NsfSpec(layers=5, hidden=[512], linear=True, activation="relu"),
        options,
        # Splines bend within five deviations; a pixel's, minus the mean, is 0.1.
        standardise=True,
        published=_PUBLISHED["bsds300-nsf"],
        remark=f"{remark}; the paper's networks are residual",
    )


def _pictures() -> Iterator[Recipe]:
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


def _variational() -> Iterator[Recipe]:
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


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for group in (_binary(), _continuous(), _pictures(), _variational())
    for recipe in group
}
