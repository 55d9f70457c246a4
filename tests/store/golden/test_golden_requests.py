"""Requests of jobs as released versions stored them, which every later version reads: those here stay as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from models_store.requests.bulk import AcceptedSampling, AcceptedScoring
from models_store.requests.search import AcceptedEnsemble, AcceptedSearch
from models_store.requests.training import AcceptedTraining
from models_store.requests.variational import AcceptedVariational

FILES = sorted(Path(__file__).parent.glob("requests_*.json"))
STORED = [
    (file.stem, name, kept) for file in FILES for name, kept in json.loads(file.read_text()).items()
]
MODELS: dict[str, type[BaseModel]] = {
    "training": AcceptedTraining,
    "search": AcceptedSearch,
    "sweep": AcceptedSearch,
    "ensemble": AcceptedEnsemble,
    "variational": AcceptedVariational,
    "scoring": AcceptedScoring,
    "sampling": AcceptedSampling,
}
MEANINGLESS = {"chosen_from", "residual"}


@pytest.mark.parametrize(
    ("name", "stored"),
    [pytest.param(name, kept, id=f"{release} {name}") for release, name, kept in STORED],
)
def test_a_request_of_a_released_version_means_what_it_did(
    name: str, stored: dict[str, Any]
) -> None:
    request = MODELS[name.split(maxsplit=1)[0]].model_validate(stored)
    assert without_news(request.model_dump(mode="json"), stored) == stored


def without_news(read: Any, stored: Any) -> Any:
    """Return what was read without the members that were not stored, and with those that mean nothing now."""
    if isinstance(stored, dict) and isinstance(read, dict):
        kept = {name: without_news(read[name], stored[name]) for name in stored if name in read}
        return kept | {name: stored[name] for name in MEANINGLESS & stored.keys()}
    if isinstance(stored, list) and isinstance(read, list) and len(read) == len(stored):
        return [without_news(*both) for both in zip(read, stored, strict=True)]
    return read
