"""The records of the client have the members that the OpenAPI document describes."""

from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from densityd.client import members
from densityd.client.records import account, datasets, jobs, models, webhooks
from densityd.client.records.record import Record
from tests.app.conftest import openapi_document

SCHEMAS: dict[str, dict[str, Any]] = openapi_document()["components"]["schemas"]
RECORDS: dict[type[Record], str] = {
    datasets.Column: "ColumnView",
    datasets.TableWarning: "WarningView",
    datasets.DatasetSummary: "DatasetSummaryView",
    datasets.Dataset: "DatasetView",
    jobs.JobModel: "JobModelView",
    jobs.JobResult: "JobResultView",
    jobs.JobError: "JobErrorView",
    jobs.JobSummary: "JobSummaryView",
    jobs.Job: "JobView",
    datasets.ColumnPage: "ColumnPage",
    jobs.EventPage: "EventPage",
    models.Latest: "LatestView",
    models.Model: "ModelView",
    models.Lineage: "LineageView",
    models.HeldOut: "HeldOutView",
    models.Checkpoint: "CheckpointView",
    models.VersionSummary: "VersionSummaryView",
    models.Version: "VersionView",
    models.Alias: "AliasView",
    webhooks.Webhook: "SecretWebhookView",
    webhooks.Delivery: "DeliveryView",
    account.Key: "NewKeyView",
    account.Limits: "LimitsView",
    account.Me: "MeView",
    account.ComputedRows: "ComputedRowsView",
    account.Quota: "QuotaView",
    account.Usage: "UsageView",
    account.ServiceVersion: "VersionInfo",
}
PROGRESS = ("ProgressView", "IterationProgressView", "RowProgressView", "ParentProgressView")
METRICS = (
    "TrainingMetrics",
    "EnsembleMetrics",
    "VariationalMetrics",
    "SearchMetrics",
    "RowMetrics",
    "ImportedMetrics",
)
REQUESTS = tuple(
    f"Accepted{kind}View" for kind in ("Training", "Search", "Variational", "Scoring", "Sampling")
)
# Of children, whose own parent alone reads them.
CHILDREN_ONLY = {"span", "pieces"}


def fields(*names: str) -> set[str]:
    return {field for name in names for field in SCHEMAS[name]["properties"]}


def families() -> Iterator[str]:
    return (name for name in SCHEMAS if name.endswith("Spec") and "family" in fields(name))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_has_the_fields_of_its_schema(record):
    assert fields(RECORDS[record]) <= set(record.model_fields)


def test_a_progress_has_the_fields_of_every_kind():
    assert fields(*PROGRESS) == set(jobs.Progress.model_fields)


@pytest.mark.parametrize(
    ("dictionary", "wanted"),
    [
        (members.Metrics, fields(*METRICS)),
        (members.TrialRow, fields("TrialView")),
        (members.ColumnFields, fields("TypedColumn")),
        (members.MixedColumnFields, fields("MixedColumn")),
        (members.FlowFields, fields(*families())),
        (members.PreprocessingFields, fields("Preprocessing")),
        (
            members.TargetFields,
            fields("PotentialTarget", "DensityTarget", "PosteriorTarget", "LatentTarget"),
        ),
        (members.AcceptedSplit, fields("AcceptedSplitView")),
        (
            members.AcceptedOptimisation,
            fields("AcceptedOptimisationView", "VariationalOptions"),
        ),
        (members.AcceptedRequest, fields(*REQUESTS) - CHILDREN_ONLY),
        (members.ReportedObject, fields("EndedJob", "TestedWebhook")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_dictionary_has_the_members_of_its_schemas(dictionary, wanted):
    assert set(get_type_hints(dictionary)) == wanted
