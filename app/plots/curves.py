"""Learning curves: what the training of a version reported, or what the file that it came from says."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from app.engine.batches import Array
from models_store.exports.exported_files import MAX_CURVE, CurveName, LearningCurve, read_record
from models_store.files.blobs import Blobs, job_of
from models_store.job_states import EventKind
from models_store.jobs.jobs import Jobs
from models_store.records import Version

CURVES: tuple[CurveName, ...] = get_args(CurveName)
LARGEST = 1e100
"""Largest number that is drawn: squares and differences of those must be finite too."""

MOST_EPOCHS = 100_000
"""Most epochs of a curve that are read."""

_PAGE = 1000


def read_curve(version: Version, jobs: Jobs, blobs: Blobs) -> dict[str, Array]:
    """Return the epochs `at` and their numbers by name, NaN where there are none; no empty curves.

    Args:
        version: Version whose training it is.
        jobs: Jobs, whose events tell of it.
        blobs: Store that has the file of an imported version.

    Raises:
        BlobMissingError: The file of an imported version is missing.
    """
    told = _imported(version, blobs) if version.job_id is None else _trained(version, jobs)
    return {name: values for name, values in told.items() if not np.isnan(values).all()}


def exported_curve(version: Version, jobs: Jobs, blobs: Blobs) -> LearningCurve | None:
    """Return a learning curve for another service; None if nothing is known of the training.

    Of a long one some epochs are left out, evenly.
    """
    curve = read_curve(version, jobs, blobs)
    if not curve.keys() & set(CURVES):
        return None
    at = curve["at"]
    chosen = np.unique(np.linspace(0, len(at) - 1, min(len(at), MAX_CURVE)).round().astype(int))
    values = {
        name: [None if np.isnan(value) else float(value) for value in curve[name][chosen]]
        for name in CURVES
        if name in curve
    }
    return LearningCurve(at=at[chosen].tolist(), values=values)


def _imported(version: Version, blobs: Blobs) -> dict[str, Array]:
    record = read_record(blobs.open(version.checkpoint_key, version.checkpoint_sha256))
    if record is None or record.learning_curve is None:
        return {}
    curve = record.learning_curve
    told = {name: _array(values) for name, values in curve.values.items()}
    at = _array(curve.at)
    placed = ~np.isnan(at)
    return {name: values[placed] for name, values in (*told.items(), ("at", at))}


def _trained(version: Version, jobs: Jobs) -> dict[str, Array]:
    """Read the curves of a training, a page of events at a time."""
    # Of a search, the child that trained the flow reported its epochs.
    job_id = job_of(version.checkpoint_key) or version.job_id or ""
    told: list[tuple[float, ...]] = []
    after = 0
    while page := jobs.events(version.project, job_id, after=after, limit=_PAGE):
        after = page[-1].seq
        for event in page:
            if event.event is EventKind.EPOCH:
                told.append(_numbers(event.data, at=len(told)))
        if len(told) > MOST_EPOCHS:
            break
    table = np.array(told).reshape(len(told), 1 + len(CURVES))
    return dict(zip(("at", *CURVES), table.T, strict=True))


def _numbers(data: dict[str, Any], *, at: int) -> tuple[float, ...]:
    place = data.get("epoch", data.get("iteration", at))
    return _number(place), *(_number(data.get(name)) for name in CURVES)


def _array(values: Sequence[object]) -> Array:
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else float("nan")
    return number if abs(number) <= LARGEST else float("nan")
