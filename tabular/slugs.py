"""Vocabulary of errors: the slug of every problem that a caller can be told of."""

from typing import Literal, get_args

# fmt: off
Slug = Literal[
    "array-dtype", "array-parse", "artifact-corrupt", "artifact-mismatch", "artifact-missing", "bad-request",
    "batch-empty", "batch-shape", "batch-value", "body-empty", "checkpoint-invalid", "column-name",
    "columns-mismatch", "columns-overlap", "compare-unavailable", "conflict", "content-decoding", "content-encoding",
    "conditionals-unavailable", "question-unavailable", "context-mismatch", "cursor", "dataset-constant-column", "dataset-dtype",
    "dataset-duplicate-columns", "dataset-empty", "dataset-encoding", "dataset-in-use", "dataset-nonfinite",
    "dataset-parse", "dataset-pickle-forbidden", "dataset-range", "dataset-shape", "dataset-too-large",
    "dataset-too-small", "dataset-truncated", "db-busy", "db-unavailable", "dimension-mismatch",
    "dimension-unsupported", "duplicate-column", "encoder-without-context", "evidence-unavailable",
    "explanation-unavailable", "flow-unsuitable", "forbidden", "foreign-site", "formula",
    "idempotency-key-reused", "internal", "issuer-away", "job-final", "job-in-use", "job-not-resumable", "job-unfinished",
    "job-without-result", "json-nonfinite", "json-syntax", "limit-aliases", "limit-reviews", "limit-tags", "limit-webhooks",
    "limit-body", "limit-columns", "limit-decoded-bytes", "limit-memory", "limit-metadata",
    "limit-open-requests", "limit-parameters", "limit-queued-jobs", "limit-result", "limit-rows",
    "limit-samples", "media-type", "method-not-allowed", "model-without-noise", "multipart", "not-acceptable",
    "not-found", "overloaded", "onnx-not-installed", "onnx-unsupported", "plot-unavailable", "precondition",
    "preprocessing-unsuitable", "quota-storage", "range", "rate-limited", "response-not-binary",
    "result-deleted", "result-not-ready", "retrain-unavailable", "score-unavailable", "split-invalid",
    "split-too-small", "stopping", "storage-full", "storage-unavailable", "unauthorized", "unknown-column",
    "unknown-field", "unknown-parameter", "unusual-not-scored", "unusual-unavailable", "validation",
    "value-nonfinite", "version-in-use",
]
# fmt: on
"""Last part of a problem's `type`; `app/problems/types.toml` has the status and the texts of each."""

SLUGS: tuple[Slug, ...] = get_args(Slug)
