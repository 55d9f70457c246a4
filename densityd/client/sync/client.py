# Generated from densityd/client/aio/client.py by tools/sync_client.py; do not edit.
"""`Client`, the entry to the API."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload

import numpy as np

from densityd.client.call import ARROW, JSON, NPY, Body, Call, Response, parse_json
from densityd.client.errors import ApiError
from densityd.client.options import TrainingOptions, UploadOptions
from densityd.client.record import Page
from densityd.client.records import AuditRecord, Job, Me, Usage, VersionInfo
from densityd.client.results import (
    Conditionals,
    Estimates,
    Evidence,
    Explained,
    Parts,
    Scores,
    Transformed,
    count_rows,
    joined,
    read_conditionals,
    read_explained,
)
from densityd.client.rows import (
    Context,
    EvidenceOptions,
    ExpectOptions,
    ExtraOption,
    Given,
    ImputeOptions,
    LogProbOptions,
    Operation,
    RowCalls,
    RowOptions,
    RowQuery,
    Space,
    SpaceOption,
    Target,
    sample_call,
    tell,
)
from densityd.client.settings import Settings
from densityd.client.signatures import shows_options
from densityd.client.sync.datasets import Datasets
from densityd.client.sync.fitted import FittedModel
from densityd.client.sync.jobs import Jobs
from densityd.client.sync.models import Models
from densityd.client.sync.project import Keys, Projects, Webhooks
from densityd.client.waiting import shown_progress
from densityd.client.wire.arrays import Floats, read_array, read_table
from densityd.client.wire.files import media_type_of, open_target
from densityd.client.wire.frames import Rows, frame_like
from densityd.client.wire.parts import JoinedResults
from densityd.client.wire.problems import of_part

if TYPE_CHECKING:
    import httpx
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Chunk = TypeVar("_Chunk")
Source: TypeAlias = Rows | Path


class Client:
    """A client of the service. Threads may share it.

    Wherever a model is named, `name` (its alias `production` if set, else the newest version),
    `name@alias` or `name:version` will do. All methods raise `ApiError` if the service refuses the
    request, and `TransportError` if there is no response.

    Rows are a frame of pandas, polars or pyarrow, a structured array or a list of records, whose columns
    are matched by name, in any order; a 2-D array of the model's columns in their order, then those of
    its context; or the `Path` of a file, the suffix of which is its format. `extra` says what becomes of
    columns that the model does not have: left out, they are ignored if the model has types, else
    refused. With `to=` a path or an open file, a result is written there and not
    returned. Many rows go in several requests, all to the version that responded to the first.

    Example:
        with Client() as client:
            dataset = client.datasets.upload("train.csv")
            job = client.jobs.train("shuttle", dataset.id)
            job = client.jobs.wait(job.id)
            print(client.log_prob(job.ref, rows))

    Args:
        service: Settings of the client, or the service's URL; None for the URL in `DENSITYD_URL`
            or http://127.0.0.1:8000.
        transport: Transport of httpx in place of the network.

    Attributes:
        datasets: Uploaded tables.
        jobs: Training and bulk jobs.
        models: Trained models and their versions.
        webhooks: URLs that are notified when jobs end.
        projects: Projects of the service, for its administrators.
    """

    def __init__(
        self,
        service: Settings | str | None = None,
        *,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        from densityd.client.sync.transport import (  # noqa: PLC0415 - httpx takes a while
            Transport,
        )

        settings = service if isinstance(service, Settings) else Settings(service)
        self._transport = Transport(settings, transport)
        self._rows_per_request = settings.rows_per_request
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.keys = Keys(self._transport)
        self.projects = Projects(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @shows_options(TrainingOptions)
    def fit(
        self,
        rows: Source,
        name: str,
        *,
        types: Mapping[str, str] | None = None,
        exclude: Sequence[str] = (),
        on_progress: Callable[[Job], object] | None = None,
        **options: Unpack[TrainingOptions],
    ) -> FittedModel:
        """Upload rows, train a model on them, and wait for it.

        Unless `missing` says otherwise, the model is trained for values that are missing anywhere, so that
        every row can be scored and every column explained. Stopping the wait leaves the job running.

        Example:
            model = client.fit(frame, "claims")
            model.score(frame)

        Args:
            name: Name of the dataset, and of the model, which gets a new version.
            types: Types of columns, such as `{"zip": "category"}`; the others are found from their values.
            exclude: Columns to leave out.
            on_progress: Called with the job each time it is fetched; None for a progress bar, at a terminal
                or in a notebook.
            **options: Options of the training; those left out are chosen from the data.

        Raises:
            JobFailedError: The training failed.
        """
        request: TrainingOptions = {"missing": "any", **options}
        upload: UploadOptions = {} if types is None else {"types": types}
        if exclude:
            upload["exclude"] = exclude
        dataset = self.datasets.upload(rows, name=name, **upload)
        job = self.jobs.train(name, dataset.id, **request)
        with shown_progress(on_progress) as show:
            ended = self.jobs.wait(job.id, on_progress=show)
        return FittedModel(self, str(ended.ref))

    def model(self, ref: str) -> FittedModel:
        """Return a model of the service as `fit` does."""
        return FittedModel(self, ref)

    def me(self) -> Me:
        """Return the caller as the service sees it: project, scope, key and limits."""
        return self._transport.fetch(Me, "/v1/me")

    def usage(self) -> Usage:
        """Return what the project has and has used, beside its quotas."""
        return self._transport.fetch(Usage, "/v1/usage")

    def audit(self) -> Iterator[AuditRecord]:
        """Return an iterator over the changes of the project, newest first; it needs the scope `admin`."""
        return self._transport.iter_items("/v1/audit", Page[AuditRecord].of)

    def version(self) -> VersionInfo:
        """Return the version of the service."""
        return self._transport.fetch(VersionInfo, "/v1/version")

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Body | None = None,
    ) -> Response:
        """Send any request of the HTTP API, such as `("GET", "/v1/usage")`, also where there is a method for it."""
        call = Call(method, path, lambda response: response, params=params or {}, body=body)
        return self._transport.send(call)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of the service."""
        return parse_json((self.call("GET", "/openapi.json")).content)

    @overload
    def log_prob(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[LogProbOptions]
    ) -> Floats: ...

    @overload
    def log_prob(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[LogProbOptions]
    ) -> None: ...

    @shows_options(LogProbOptions)
    def log_prob(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[LogProbOptions]
    ) -> Floats | None:
        """Return the log density of each row in nats; -inf or NaN if there is no finite one.

        Args:
            rows: Rows. An array in a file (`np.load(..., mmap_mode="r")`) is read and sent in chunks.
            **options: Space of the rows, and treatment of columns that the model does not have; or
                `columns` and `given`, for the density of some columns given others.

        Raises:
            ValueError: The rows are no table, or an array of something else than numbers.
        """
        found = self._arrays("log_prob", ref, rows, to, options)
        if found is None:
            return None
        return found[0] if found[0].ndim == 1 else found[0][:, 0]

    def estimates(
        self, ref: str, rows: Source, *, columns: Sequence[str] = (), given: Sequence[str] = ()
    ) -> Estimates:
        """Return log densities of some columns given others, with their standard errors.

        Args:
            rows: Rows, which need no other columns.
            columns: Columns whose density is asked for; by default all that are not known.

        Raises:
            ApiError: The model has no companion (`question-unavailable`), or no such column.
        """
        asked = {"columns": [*columns], "given": [*given]}
        found = self._collect(RowQuery("log_prob", ref, asked, NPY, read_array), rows, None)
        assert found is not None  # noqa: S101  nothing is written
        return Estimates(*np.concatenate(found[0]).T)

    @shows_options(ImputeOptions)
    def impute(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[ImputeOptions]
    ) -> Any:  # noqa: ANN401  a frame of pandas may be
        """Return rows whose gaps are filled, each given all other cells of its row.

        Args:
            **options: What the gaps get, intervals, and the columns that the rows have.

        Returns:
            A frame of the library of the rows, else of pandas; None if it goes to a file.

        Raises:
            ApiError: The model has no companion (`question-unavailable`).
        """
        return self._table("impute", ref, rows, to, options)

    @shows_options(ExpectOptions)
    def expect(
        self,
        ref: str,
        rows: Source,
        column: str,
        *,
        to: Target | None = None,
        **options: Unpack[ExpectOptions],
    ) -> Any:  # noqa: ANN401  a frame of pandas may be
        """Return what a column is expected to be, given the others of each row.

        Args:
            rows: Rows, which need not have the column.
            **options: Columns that are known, quantiles, and bounds.

        Returns:
            Columns `mean` and `quantiles.SHARE` of a column of numbers, `probabilities.LEVEL` of one of levels,
            and `probability` with bounds; as `impute`.
        """
        return self._table("expect", ref, rows, to, {"column": column, **options})

    @overload
    def parts(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[ExtraOption]
    ) -> Parts: ...

    @overload
    def parts(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[ExtraOption]
    ) -> None: ...

    @shows_options(ExtraOption)
    def parts(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[ExtraOption]
    ) -> Parts | None:
        """Return the log density of each row and its two parts; arguments as for `log_prob`."""
        params = {**options, "parts": "true"}
        found = self._arrays("log_prob", ref, rows, to, params)
        return None if found is None else Parts(*found[0].T)

    @overload
    def conditionals(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[RowOptions]
    ) -> Conditionals: ...

    @overload
    def conditionals(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[RowOptions]
    ) -> None: ...

    @shows_options(RowOptions)
    def conditionals(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[RowOptions]
    ) -> Conditionals | None:
        """Return log p(x_i | x_<i) of each column of each row, and its mean given those before it.

        The means are the reconstruction of an autoencoder: of columns of 0 and 1 under a Bernoulli MADE,
        probabilities of a 1. Arguments are those of `log_prob`.

        Raises:
            ApiError: The model is not one autoregressive layer (`conditionals-unavailable`).
        """
        params = {**options, "conditionals": "true"}
        query = RowQuery("log_prob", ref, params, JSON, read_conditionals)
        found = self._collect(query, rows, to)
        return None if found is None else joined(found[0])

    @overload
    def score(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[ExtraOption]
    ) -> Scores: ...

    @overload
    def score(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[ExtraOption]
    ) -> None: ...

    @shows_options(ExtraOption)
    def score(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[ExtraOption]
    ) -> Scores | None:
        """Return the log density and the rank of each row; arguments as for `log_prob`.

        Raises:
            ApiError: The model has no held-out rows (`score-unavailable`).
        """
        found = self._arrays("score", ref, rows, to, options)
        return None if found is None else Scores(found[0][:, 0], found[0][:, 1], found[1])

    @overload
    def explain(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[ExtraOption]
    ) -> Explained: ...

    @overload
    def explain(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[ExtraOption]
    ) -> None: ...

    @shows_options(ExtraOption)
    def explain(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[ExtraOption]
    ) -> Explained | None:
        """Return the scores of each row and the contribution of each of its columns.

        A model that was trained with `missing="any"` tells the contribution of every column. Arguments
        and errors are those of `score`.
        """
        query = RowQuery("score", ref, {**options, "explain": "true"}, JSON, read_explained)
        found = self._collect(query, rows, to)
        return None if found is None else joined(found[0])

    @overload
    def evidence(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[EvidenceOptions]
    ) -> Evidence: ...

    @overload
    def evidence(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[EvidenceOptions]
    ) -> None: ...

    @shows_options(EvidenceOptions)
    def evidence(
        self,
        ref: str,
        rows: Source,
        *,
        to: Target | None = None,
        **options: Unpack[EvidenceOptions],
    ) -> Evidence | None:
        """Return two lower bounds of the log evidence of each row under a model with latent variables.

        Args:
            rows: Rows of the columns that the latent variables explain, the model's context columns.
            **options: Number of samples of the posterior of each row, their seed, and treatment of columns
                that the model does not have.

        Raises:
            ApiError: The model has no latent variables (`evidence-unavailable`).
        """
        params = {"samples": 100, "seed": 0, **options}
        found = self._arrays("evidence", ref, rows, to, params)
        return None if found is None else Evidence(*found[0].T)

    @overload
    def inverse(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[SpaceOption]
    ) -> Transformed: ...

    @overload
    def inverse(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[SpaceOption]
    ) -> None: ...

    @shows_options(SpaceOption)
    def inverse(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[SpaceOption]
    ) -> Transformed | None:
        """Return the noise that each row of data comes from; arguments as for `log_prob`."""
        found = self._arrays("inverse", ref, rows, to, options)
        return None if found is None else Transformed(found[0][:, :-1], found[0][:, -1])

    @overload
    def forward(
        self, ref: str, rows: Source, *, to: None = None, **options: Unpack[SpaceOption]
    ) -> Transformed: ...

    @overload
    def forward(
        self, ref: str, rows: Source, *, to: Target, **options: Unpack[SpaceOption]
    ) -> None: ...

    @shows_options(SpaceOption)
    def forward(
        self, ref: str, rows: Source, *, to: Target | None = None, **options: Unpack[SpaceOption]
    ) -> Transformed | None:
        """Return the data that each row of noise becomes; columns of a context come last."""
        found = self._arrays("forward", ref, rows, to, options)
        return None if found is None else Transformed(found[0][:, :-1], found[0][:, -1])

    @overload
    def sample(
        self,
        ref: str,
        n: int,
        *,
        to: None = None,
        seed: int | None = None,
        context: Context = None,
        given: Given = None,
        space: Space = "data",
    ) -> Floats: ...

    @overload
    def sample(
        self,
        ref: str,
        n: int,
        *,
        to: Literal["table"],
        seed: int | None = None,
        context: Context = None,
        given: Given = None,
        space: Space = "data",
    ) -> "pa.Table": ...

    @overload
    def sample(
        self,
        ref: str,
        n: int,
        *,
        to: Target,
        seed: int | None = None,
        context: Context = None,
        given: Given = None,
        space: Space = "data",
    ) -> None: ...

    def sample(  # noqa: PLR0913 - those of a sampling
        self,
        ref: str,
        n: int,
        *,
        to: Target | Literal["table"] | None = None,
        seed: int | None = None,
        context: Context = None,
        given: Given = None,
        space: Space = "data",
    ) -> "Floats | pa.Table | None":
        """Draw rows from a model.

        Args:
            to: None for an array, in which text is codes and dates are seconds; `"table"` for an Arrow
                table with the values of the data (`.to_pandas()`, `.to_pylist()` and polars'
                `from_arrow` make a frame or records of it); or the file of the rows.
            seed: Seed that gives the same rows from the same version again; None for a random one.
            context: Context of a conditional model: one row for all samples, or one for each.
            given: Cells that all rows have, by column: a value, `{"in": [values]}` or
                `{"between": [low, high]}`.
        """
        media_type, read = (NPY, read_array) if to is None else (ARROW, read_table)
        if to is not None and to != "table":
            media_type = media_type_of(to)
        call: Call[Any] = sample_call(
            ref, n, media_type, read, seed=seed, context=context, given=given, space=space
        )
        if to is None or to == "table":
            return self._transport.send(call)
        self._transport.save(call, to)
        return None

    def _table(
        self,
        operation: Operation,
        ref: str,
        rows: Source,
        to: Target | None,
        params: Mapping[str, object],
    ) -> Any:  # noqa: ANN401  a frame of pandas may be
        """Return one table of the results of all rows; None if they go to a file."""
        found = self._collect(RowQuery(operation, ref, params, ARROW, read_table), rows, to)
        if found is None:
            return None
        import pyarrow as pa  # noqa: PLC0415 - it is large, and only those who have tables need it

        whole = pa.concat_tables(found[0])
        return frame_like(rows, dict(zip(whole.column_names, whole.columns, strict=True)))

    def _arrays(
        self,
        operation: Operation,
        ref: str,
        rows: Source,
        to: Target | None,
        params: Mapping[str, object],
    ) -> tuple[Floats, list[str]] | None:
        """Return one array of the results of all rows, and warnings; None if they go to a file."""
        query = RowQuery(operation, ref, params, NPY, read_array)
        found = self._collect(query, rows, to)
        return None if found is None else (np.concatenate(found[0]), found[1])

    def _collect(
        self, query: RowQuery[_Chunk], rows: Source, to: Target | None
    ) -> tuple[list[_Chunk], list[str]] | None:
        """Return the results of each request about rows, and warnings; None if they go to a file."""
        found: list[_Chunk] = []
        if to is not None:
            self._write(query, rows, to)
            return None
        calls = RowCalls(query, rows, self._rows_per_request)
        parts = iter(calls)
        while (call := next(parts, None)) is not None:
            chunk = self._send_part(call, calls.start)
            found.append(chunk)
            calls.start += count_rows(chunk)
        tell(calls.warnings)
        return found, calls.warnings

    def _write(self, query: RowQuery[Any], rows: Source, to: Target) -> None:
        """Write the results of all requests about rows to one file."""
        media_type = media_type_of(to)
        written = replace(query, media_type=media_type, read=bytes)
        calls: RowCalls[bytes] = RowCalls(written, rows, self._rows_per_request)
        with open_target(to) as file:
            results = JoinedResults(media_type, file)
            parts = iter(calls)
            while (call := next(parts, None)) is not None:
                content = self._send_part(call, calls.start)
                results.add(content)
                calls.start = results.rows
            JoinedResults.finish(results)
        tell(calls.warnings)

    def _send_part(self, call: Call[_Chunk], start: int) -> _Chunk:
        try:
            return self._transport.send(call)
        except ApiError as error:
            raise of_part(error, start) from error
