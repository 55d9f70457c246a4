"""Study of amortised inference: posteriors of a variational autoencoder, a Gaussian beside flows."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.data import catalogue as data
from experiments.studies.study import Cell, Study
from flows import (
    EncoderSpec,
    GaussianSpec,
    IafSpec,
    LatentSpec,
    LatentTarget,
    VariationalOptions,
    build,
    compile_flow,
    count_parameters,
    fit_variational,
    row_evidence,
)
from flows.families.family import FamilySpec

LATENTS, UNITS, FEATURES, IAF_UNITS = 32, 200, 100, 100
"""Latent variables, units of encoder and decoder, features of the encoded row, units of an IAF."""

POSTERIORS = {"diagonal": 0, "iaf-2": 2, "iaf-4": 4}
"""Posteriors by name, with their layers of inverse autoregressive flow."""

SEEDS, TEST_ROWS, SAMPLES = 2, 2_000, 100
OPTIONS = VariationalOptions(
    learning_rate=2e-3, schedule="cosine", batch_size=100, iterations=6_000, report_every=200
)
PUBLISHED_GAIN = 2.06
"""Nats by which two layers of IAF raise the bound of Kingma et al. 2016 (table 1, width 320)."""

_QUICK_ITERATIONS, _QUICK_ROWS = 20, 20


def posterior_of(name: str) -> FamilySpec:
    """Return the specification of q(z | x): every one has the same encoder.

    Args:
        name: Name of the posterior, one of `POSTERIORS`.
    """
    encoder = EncoderSpec(hidden=[UNITS], features=FEATURES)
    if layers := POSTERIORS[name]:
        return IafSpec(layers=layers, hidden=[IAF_UNITS], batch_norm=None, encoder=encoder)
    return GaussianSpec(covariance="diagonal", encoder=encoder)


class AmortisedStudy(Study):
    """Study of posteriors on binary pictures; a seed draws weights, rows and noise."""

    name = "amortised-mnist"
    title = "Variational autoencoders of binarised MNIST"
    data = "binarized_mnist"
    cells = tuple({"posterior": name, "seed": seed} for seed in range(SEEDS) for name in POSTERIORS)

    def measure(self, cell: Cell, folder: Path, *, quick: bool) -> dict[str, Any]:
        """Return mean ELBO and importance-weighted bound of test rows in nats, and the curve."""
        rows = data.load(self.data, folder)
        test = _spread(rows.test, _QUICK_ROWS if quick else TEST_ROWS)
        spec = LatentSpec(
            flow=posterior_of(cell["posterior"]), likelihood="bernoulli", hidden=[UNITS]
        )
        columns = rows.train.shape[1]
        flow = build(spec, LATENTS, context_dim=columns, seed=cell["seed"])
        options = VariationalOptions(
            **vars(OPTIONS)
            | {"seed": cell["seed"]}
            | ({"iterations": _QUICK_ITERATIONS} if quick else {})
        )
        began, curve, last = time.process_time(), [], None
        for last in fit_variational(flow, LatentTarget(flow, rows.train), options=options):
            curve.append([last.iteration, round(last.elbo, 3)])
        assert last is not None  # noqa: S101  there is one report at least
        seconds = time.process_time() - began
        elbo, bound = row_evidence(
            compile_flow(flow), test.numpy(), samples=SAMPLES, seed=cell["seed"]
        )
        return {
            "test_elbo": float(elbo.mean()),
            "test_elbo_standard_error": float(elbo.std()) / len(test) ** 0.5,
            "test_bound": float(bound.mean()),
            "test_bound_standard_error": float(bound.std()) / len(test) ** 0.5,
            "test_rows": len(test),
            "samples": SAMPLES,
            "parameters": count_parameters(spec, LATENTS, columns),
            "iterations": last.iteration,
            "best_iteration": last.best_iteration,
            "training_processor_seconds": round(seconds, 1),
            "curve": curve,
        }


def _spread(rows: Tensor, count: int) -> Tensor:
    """Return rows from all parts of a table, whose order is no random one."""
    return rows[:: max(1, len(rows) // count)][:count]


STUDIES: dict[str, Study] = {AmortisedStudy.name: AmortisedStudy()}
