"""Datasets: list, inspect, read back, change, delete."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path as PathField, Query, Request, Response
from pydantic import BaseModel, Field

from app.datasets.retyping import DatasetChange, retype_dataset
from app.datasets.rows import respond_rows
from app.datasets.views import (
    ColumnPage,
    DatasetPage,
    DatasetSummaryView,
    DatasetView,
    RowsView,
)
from app.dependencies import ProjectDep, StateDep
from app.http.examples import COLUMNS, DATASET_ID, TABLE
from app.http.exchange import exchange_of
from app.http.json_body import json_body, json_request
from app.limits import FairRoute, in_thread
from app.problems.problem import Problem, problem_responses
from app.resources.etags import (
    ETAG,
    NO_CONDITIONS,
    NOT_MODIFIED,
    PreconditionsDep,
    etag_of_view,
    respond,
)
from app.resources.labels import LABEL_EXAMPLES
from app.resources.listing import LINKED, NamePrefix, PagingDep, SelectionDep
from app.rows.codecs import response_codec
from app.rows.docs import rows_response_content
from app.state import state_of
from models_store.labels import any_state
from models_store.records import Dataset
from models_store.requests.training import DatasetId

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=FairRoute)

_ROWS_EXAMPLE = {"columns": COLUMNS, "rows": TABLE[:2], "offset": 0, "total": len(TABLE)}
_CHANGE_EXAMPLES = {
    "category": {"summary": "A column of codes", "value": {"types": {"height": "category"}}},
    **LABEL_EXAMPLES,
}
DatasetPath = Annotated[
    DatasetId,
    PathField(description="Id of the dataset.", examples=[DATASET_ID]),
]


class ColumnSlice(BaseModel):
    """Range of columns of a dataset."""

    offset: int = Field(default=0, ge=0, le=2**53, description="Index of the first column, from 0.")
    limit: int = Field(default=100, ge=1, le=2**53, description="Largest number of columns.")


class RowSlice(BaseModel):
    """Range of rows of a dataset."""

    offset: int = Field(default=0, ge=0, le=2**53, description="Index of the first row, from 0.")
    limit: int = Field(default=100, ge=1, le=2**53, description="Largest number of rows.")
    step: int = Field(
        default=1,
        ge=1,
        le=2**53,
        description="Step between rows: 10 takes each tenth row.",
    )


@router.get(
    "",
    operation_id="list_datasets",
    summary="List datasets",
    response_description="Page of datasets.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_datasets(
    project: ProjectDep,
    state: StateDep,
    paging: PagingDep,
    selection: SelectionDep,
    name_prefix: NamePrefix = None,
    sha256: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the stored table, or of the uploaded file.",
        ),
    ] = None,
) -> DatasetPage:
    """List datasets, newest first, without their columns."""
    page = state.registry.datasets(
        project,
        limit=paging.limit,
        cursor=paging.cursor,
        filters=selection.filters(name_prefix=name_prefix),
        sha256=sha256,
    )
    return paging.view(page, DatasetSummaryView.of, DatasetPage)


@router.get(
    "/{dataset_id}",
    operation_id="get_dataset",
    summary="Get a dataset",
    response_description="Dataset with its columns and warnings.",
    response_model=DatasetView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition"),
    },
)
def get_dataset(
    dataset_id: DatasetPath, project: ProjectDep, state: StateDep, conditions: PreconditionsDep
) -> Response:
    """Return a dataset with the statistics of its columns and its warnings."""
    return respond(DatasetView.whole(state.registry.dataset(project, dataset_id)), conditions)


@router.get(
    "/{dataset_id}/columns",
    operation_id="list_columns",
    summary="List the columns of a dataset",
    response_description="Page of columns, in the order of the file.",
    response_model=ColumnPage,
    responses=problem_responses("not-found"),
)
def list_columns(
    dataset_id: DatasetPath,
    project: ProjectDep,
    state: StateDep,
    wanted: Annotated[ColumnSlice, Query()],
) -> Response:
    """Return a page of columns with their types and statistics, for tables with many columns."""
    columns = state.registry.dataset(project, dataset_id).columns
    shown = columns[wanted.offset : wanted.offset + wanted.limit]
    page = {"items": shown, "offset": wanted.offset, "total": len(columns)}
    return respond(ColumnPage.model_validate(page))


@router.get(
    "/{dataset_id}/rows",
    operation_id="get_dataset_rows",
    summary="Read rows of a dataset",
    response_class=Response,
    responses={
        200: {
            "description": "Rows in the format that `Accept` asks for.",
            "content": rows_response_content(
                RowsView.model_json_schema(), example=_ROWS_EXAMPLE, columns=COLUMNS
            ),
        },
        **problem_responses("not-found", "not-acceptable", "artifact-missing", "artifact-corrupt"),
    },
)
async def get_dataset_rows(
    request: Request,
    dataset_id: DatasetPath,
    project: ProjectDep,
    state: StateDep,
    wanted: Annotated[RowSlice, Query()],
) -> Response:
    """Return rows of a dataset as its file has them, in any format; many rows are streamed.

    npy holds numbers alone: those of the columns that are modelled, with the codes of levels.
    In CSV, a column name that a spreadsheet would read as a formula begins with `'`.
    """
    codec = response_codec(exchange_of(request).listed(b"accept"))
    find = partial(state.registry.dataset, project, dataset_id)
    rows = range(wanted.offset, wanted.offset + wanted.limit * wanted.step, wanted.step)
    return await respond_rows(find, state.blobs, codec=codec, rows=rows)


@router.patch(
    "/{dataset_id}",
    operation_id="update_dataset",
    summary="Change a dataset",
    response_description="Changed dataset.",
    response_model=DatasetView,
    responses=problem_responses(
        *(
            "not-found",
            "precondition",
            "limit-tags",
            "dataset-in-use",
            "conflict",
            "dataset-dtype",
            "dataset-shape",
        ),
        *("dataset-too-large", "unknown-column", "quota-storage", "storage-full"),
        *("storage-unavailable", "artifact-missing", "artifact-corrupt"),
    ),
    openapi_extra=json_request(DatasetChange, examples=_CHANGE_EXAMPLES),
)
async def update_dataset(
    request: Request,
    dataset_id: DatasetPath,
    change: Annotated[DatasetChange, Depends(json_body(DatasetChange))],
    project: ProjectDep,
    conditions: PreconditionsDep,
) -> Response:
    """Change the description, the tags or the types of columns; other fields stay unchanged.

    Types change without another upload. No job that has not ended may read the dataset then, and
    models that were trained on it keep their types.
    """
    state, labels, always = state_of(request), change.change(), conditions.hold_always

    def holds(dataset: Dataset) -> bool:
        return conditions.hold(etag_of_view(DatasetView.whole(dataset)))

    def unchanged() -> Dataset:
        old = state.registry.dataset(project, dataset_id)
        if not holds(old):
            raise Problem("precondition", "The dataset has another ETag.")
        labels.merged(old.tags)
        return old

    def label() -> Dataset:
        return state.labels.dataset(project, dataset_id, labels, any_state if always else holds)

    if change.types is None:
        dataset = await in_thread(label)
    else:
        old = await in_thread(unchanged)
        types = change.types
        dataset = await retype_dataset(request, old, types, labels, as_labelled=not always)
    return await in_thread(lambda: respond(DatasetView.whole(dataset), NO_CONDITIONS))


@router.delete(
    "/{dataset_id}",
    operation_id="delete_dataset",
    summary="Delete a dataset",
    status_code=204,
    response_description="The dataset is deleted.",
    responses=problem_responses("not-found", "dataset-in-use", "storage-unavailable"),
)
def delete_dataset(dataset_id: DatasetPath, project: ProjectDep, state: StateDep) -> None:
    """Delete a dataset that no unfinished job reads. Models that were trained on it stay."""
    dataset = state.registry.delete_dataset(project, dataset_id)
    state.blobs.delete(dataset.key.rpartition("/")[0])
