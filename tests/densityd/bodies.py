"""Bodies of responses, for a server that is scripted."""

DATASET: dict[str, object] = {
    "id": "ds_1", "name": None, "rows": 6, "bytes": 1, "sha256": "a", "columns": [],
    "column_count": 0, "warnings": [],
    "description": None, "tags": {}, "created_at": "2026-11-24T15:27:00Z",
}  # fmt: skip
JOB: dict[str, object] = {
    "id": "job_1", "kind": "training", "state": "succeeded", "attempt": 1, "started_at": None,
    "created_at": "2026-11-24T15:27:00Z", "finished_at": None, "progress": None, "metrics": None,
    "model": {"name": "m", "version": 1}, "cancel_requested": False,
    "error": None, "request": {}, "newer": True, "description": None, "tags": {}, "priority": 0,
    "resources": {}, "dataset_id": None, "role": None, "parent_id": None, "result": None,
    "next_attempt_at": None,
}  # fmt: skip
VERSION: dict[str, object] = {
    "name": "m", "version": 1, "family": "maf", "dim": 2, "columns": ["a", "b"], "flow": {},
    "preprocessing": {}, "parameters": 4, "metrics": {}, "aliases": [], "types": None,
    "context_columns": [], "held_out": None, "description": None, "tags": {},
    "lineage": {
        "job_id": None, "dataset_id": None, "dataset_sha256": None, "target": None,
        "code_version": "1", "seed": None,
    },
    "checkpoint": {"sha256": "a", "bytes": 1}, "created_at": "2026-11-24T15:27:00Z",
}  # fmt: skip
COLUMN: dict[str, object] = {
    "dtype": "float64", "mean": None, "std": None, "min": None, "max": None, "distinct": None,
}  # fmt: skip
CLAIMS = {
    "id": "ds_1",
    "name": "claims",
    "rows": 6,
    "column_count": 3,
    "bytes": 96,
    "sha256": "a",
    "description": None,
    "tags": {},
    "created_at": "2026-01-01T00:00:00Z",
    "columns": [
        {**COLUMN, "name": "zip", "type": "category", "reason": "text", "levels": ["01", "02"]},
        {**COLUMN, "name": "amount", "reason": "numbers", "mean": 1.5},
        {**COLUMN, "name": "id", "type": "ignored", "reason": "consecutive numbers"},
    ],
    "warnings": [{"code": "missing", "column": None, "detail": "2 rows were dropped."}],
}
