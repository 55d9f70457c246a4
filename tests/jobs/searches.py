"""Accepted searches that the store's tests submit."""

from collections.abc import Sequence
from typing import Any

from flows import FitOptions, RealNvpSpec
from models_store.requests.search import AcceptedSearch, Stage
from models_store.requests.training import AcceptedSplit, Preprocessing, Trial


def a_search(
    *, trials: int, stages: Sequence[tuple[int, float]] | None = None, **changes: Any
) -> dict[str, Any]:
    trial = Trial(
        flow=RealNvpSpec(layers=2, hidden=[8]), optimisation=FitOptions(max_epochs=40, patience=10)
    )
    split = AcceptedSplit(
        train=0.8,
        validation=0.1,
        test=0.1,
        shuffle=True,
        seed=0,
        validation_dataset_id=None,
        test_dataset_id=None,
    )
    search = AcceptedSearch(
        model_name="shuttle",
        dataset_id="ds_" + 32 * "0",
        columns=["a", "b"],
        split=split,
        preprocessing=Preprocessing(dequantise=None),
        trials=[trial] * trials,
        stages=[Stage(trials=n, share=share) for n, share in stages or ((trials, 1 / 3), (1, 1.0))],
        **{"ensemble": 1, **changes},
    )
    return search.model_dump(mode="json")
