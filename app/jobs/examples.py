"""Examples for OpenAPI: bodies that start jobs, of which Swagger UI sends the first one, and a job's request."""

from collections.abc import Mapping
from typing import Any

from app.http.examples import COLUMNS, DATASET_ID, MODEL
from flows import FitOptions, MafSpec
from models_store.requests.training import AcceptedSplit, AcceptedTraining, Preprocessing

Examples = Mapping[str, Mapping[str, Any]]

TRAINING_EXAMPLES: Examples = {
    "simplest": {
        "summary": "Required fields only",
        "value": {"model_name": MODEL, "dataset_id": DATASET_ID},
    },
    "chosen": {
        "summary": "Options chosen by the caller",
        "value": {
            "model_name": MODEL,
            "dataset_id": DATASET_ID,
            "columns": COLUMNS,
            "split": {"train": 0.8, "validation": 0.1, "test": 0.1, "shuffle": True, "seed": 0},
            "preprocessing": {"standardise": True},
            "flow": {
                "family": "maf",
                "layers": 5,
                "hidden": [128],
                "batch_norm": {"statistics": "dataset"},
                "order": "reverse",
                "activation": "tanh",
            },
            "optimisation": {
                "optimiser": "adam",
                "learning_rate": 1e-3,
                "weight_decay": 1e-6,
                "batch_size": 100,
                "max_epochs": 200,
                "patience": 30,
                "max_seconds": 600.0,
                "schedule": "constant",
                "seed": 0,
            },
        },
    },
}
SWEEP_EXAMPLES: Examples = {
    "sizes": {
        "summary": "Layers, widths and learning rates of a MAF",
        "value": {
            "model_name": MODEL,
            "dataset_id": DATASET_ID,
            "flow": {"family": "maf", "activation": "tanh", "batch_norm": None},
            "ranges": {
                "flow.layers": {"low": 2, "high": 8},
                "flow.hidden": {"values": [[32, 32], [64, 64], [128, 128]]},
                "optimisation.learning_rate": {"low": 3e-4, "high": 1e-2, "scale": "log"},
            },
            "trials": 16,
        },
    },
    "families": {
        "summary": "Whole specs, an ensemble of the best three, within an hour",
        "value": {
            "model_name": MODEL,
            "dataset_id": DATASET_ID,
            "ranges": {
                "flow": {"values": [{"family": "maf"}, {"family": "nsf"}, {"family": "realnvp"}]},
                "optimisation.weight_decay": {"values": [0.0, 1e-5, 1e-3]},
            },
            "method": "random",
            "trials": 9,
            "reduction": 2,
            "ensemble": 3,
            "optimisation": {"max_seconds": 3600.0},
            "seed": 1,
        },
    },
}
VARIATIONAL_EXAMPLES: Examples = {
    "potential": {
        "summary": "Named potential, required fields only",
        "value": {"model_name": "ring", "target": {"potential": "U1"}},
    },
    "formula": {
        "summary": "Formula of a log density",
        "value": {
            "model_name": "banana",
            "target": {
                "log_density": "-0.5 * (z1 / 2)^2 - 0.5 * ((z2 - z1^2 / 4) / 0.5)^2",
                "dim": 2,
                "window": {"lower": [-8, -3], "upper": [8, 18]},
            },
            "flow": {"family": "realnvp", "layers": 8, "hidden": [64], "batch_norm": None},
            "optimisation": {
                "optimiser": "adam",
                "learning_rate": 1e-3,
                "schedule": "cosine",
                "max_gradient_norm": 10.0,
                "batch_size": 128,
                "iterations": 5000,
                "report_every": 100,
                "annealing": 1000,
                "patience": None,
                "max_seconds": 600.0,
                "seed": 0,
            },
        },
    },
    "posterior": {
        "summary": "Posterior of a Bayesian logistic regression",
        "value": {
            "model_name": "risk",
            "target": {
                "posterior": {
                    "kind": "logistic",
                    "dataset_id": DATASET_ID,
                    "response": "ill",
                    "prior_scale": 1.0,
                }
            },
        },
    },
    "latent": {
        "summary": "Latent variables of each row of 0 and 1, with a decoder that is learnt",
        "value": {
            "model_name": "digits",
            "target": {
                "latent": {
                    "dataset_id": DATASET_ID,
                    "likelihood": "bernoulli",
                    "dim": 8,
                    "hidden": [200],
                }
            },
        },
    },
    "known": {
        "summary": "Coefficients of each row, by a known linear model with Gaussian noise",
        "value": {
            "model_name": "sensors",
            "target": {
                "latent": {
                    "dataset_id": DATASET_ID,
                    "columns": COLUMNS,
                    "likelihood": "gaussian",
                    "loadings": [[1.0], [0.5]],
                    "noise_scale": 0.1,
                }
            },
        },
    },
}
SCORING_EXAMPLES: Examples = {
    "simplest": {
        "summary": "Scores as a Parquet file",
        "value": {"model": MODEL, "dataset_id": DATASET_ID},
    },
    "with rows": {
        "summary": "Scores beside the dataset's columns, as CSV",
        "value": {
            "model": f"{MODEL}:1",
            "dataset_id": DATASET_ID,
            "output": "csv",
            "include_rows": True,
        },
    },
}
IMPUTATION_EXAMPLES: Examples = {
    "simplest": {
        "summary": "The dataset without gaps, as a Parquet file",
        "value": {"model": MODEL, "dataset_id": DATASET_ID},
    },
    "intervals": {
        "summary": "Medians with 90 % intervals, as CSV",
        "value": {
            "model": f"{MODEL}:1",
            "dataset_id": DATASET_ID,
            "fill": "median",
            "level": 0.9,
            "output": "csv",
        },
    },
}
SAMPLING_EXAMPLES: Examples = {
    "simplest": {
        "summary": "A million samples as a Parquet file",
        "value": {"model": MODEL, "n": 1_000_000},
    },
    "reproducible": {
        "summary": "Samples with a fixed seed as an npy file",
        "value": {"model": f"{MODEL}:1", "n": 1_000_000, "seed": 7, "output": "npy"},
    },
}
PREVIEW_EXAMPLES: Examples = {
    name: {**example, "value": {"target": example["value"]["target"]}}
    for name, example in VARIATIONAL_EXAMPLES.items()
    if name in ("potential", "formula")
}
REQUEST_EXAMPLE: dict[str, Any] = AcceptedTraining(
    model_name=MODEL,
    dataset_id=DATASET_ID,
    columns=COLUMNS,
    split=AcceptedSplit(
        train=0.8,
        validation=0.1,
        test=0.1,
        shuffle=True,
        seed=0,
        validation_dataset_id=None,
        test_dataset_id=None,
    ),
    preprocessing=Preprocessing(),
    flow=MafSpec(hidden=[64, 64], batch_norm=None),
    optimisation=FitOptions(
        learning_rate=0.0025,
        weight_decay=1e-6,
        max_gradient_norm=5.0,
        batch_size=250,
        max_epochs=160,
        schedule="cosine",
        row_loss_bound=30.0,
        weight_average=0.99,
        noise="epoch",
        restarts=1,
    ),
).model_dump(mode="json")
