# Generated from densityd/client/aio/fitted.py by tools/sync_client.py; do not edit.
"""A model of the service as data scientists use one: data frames in, data frames out."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from densityd.client.errors import ApiError
from densityd.client.filters import UnusualFilters
from densityd.client.records import Dataset, Monitoring
from densityd.client.results import Explained
from densityd.client.rows import Context, ExpectOptions, Extra, Given, ImputeOptions
from densityd.client.signatures import shows_options
from densityd.client.wire.frames import Rows, frame_like

if TYPE_CHECKING:
    from densityd.client.sync.client import Client


class FittedModel:
    """A model that scores and draws data frames.

    Its frames are of the library of the rows that it is given, polars or pyarrow, else pandas.

    Attributes:
        ref: Reference of the model, such as `claims:2`, as all methods of the client take it.
    """

    def __init__(self, client: "Client", ref: str) -> None:
        self.ref = ref
        self._client = client

    def __repr__(self) -> str:
        return f"<model {self.ref}>"

    def score(
        self,
        rows: Rows | Path,
        *,
        reasons: bool | None = None,
        extra: Extra | None = None,
    ) -> Any:  # noqa: ANN401  of the caller's library
        """Return a data frame with one row for each row given, in their order.

        Its columns are `log_prob` (log density in nats), `rank` (among rows that the model was not trained on:
        0.01 is as unlikely as the least likely hundredth) and `reasons` (columns whose cells are less likely
        than is usual there, the worst first, with the difference in nats).

        Args:
            reasons: Give reasons, which takes longer; None gives them if the model can.

        Raises:
            ApiError: The model has no held-out rows (`score-unavailable`).
        """
        found = None
        if reasons is not False:
            found = self._explain(rows, extra, required=bool(reasons))
        if found is None:
            scores = self._client.score(self.ref, rows, extra=extra)
            return frame_like(rows, {"log_prob": scores.log_prob, "rank": scores.quantile})
        told = [found.describe(row) for row in range(len(found.log_prob))]
        columns = {"log_prob": found.log_prob, "rank": found.quantile, "reasons": told}
        return frame_like(rows, columns)

    def _explain(
        self, rows: Rows | Path, extra: Extra | None, *, required: bool
    ) -> Explained | None:
        """Return explained scores; None if the model has none and they are not required."""
        try:
            return self._client.explain(self.ref, rows, extra=extra)
        except ApiError as error:
            if required or not error.type.endswith("/explanation-unavailable"):
                raise
            return None

    @shows_options(UnusualFilters)
    def unusual(self, **filters: Unpack[UnusualFilters]) -> Any:  # noqa: ANN401  as above
        """Return a data frame of the least likely rows of the table that the model was trained on.

        Its columns are `row` (its number in the table, from 0), `rank`, `reasons` (cells that make the row unlikely,
        with what is usual there), `review` (what a person found about it), then the columns of the table.

        Raises:
            ApiError: There are none (`unusual-unavailable`).
        """
        found = self._client.models.unusual(self.ref, **filters)
        return frame_like(None, found.to_columns())

    def sample(
        self, n: int, *, seed: int | None = None, context: Context = None, given: Given = None
    ) -> Any:  # noqa: ANN401  as above
        """Return a data frame of rows that the model draws, with the columns and values of its data.

        Args:
            seed: Seed that gives the same rows from the same version again; None for a random one.
            context: Context of a conditional model: one row for all samples, or one for each.
            given: Cells that all rows have, by column: a value, `{"in": [values]}` or
                `{"between": [low, high]}`.
        """
        table = self._client.sample(
            self.ref, n, to="table", seed=seed, context=context, given=given
        )
        return frame_like(None, dict(zip(table.column_names, table.columns, strict=True)))

    @shows_options(ImputeOptions)
    def impute(self, rows: Rows | Path, **options: Unpack[ImputeOptions]) -> Any:  # noqa: ANN401  as above
        """Return rows whose gaps are filled, as `client.impute` does."""
        return self._client.impute(self.ref, rows, **options)

    @shows_options(ExpectOptions)
    def expect(self, rows: Rows | Path, column: str, **options: Unpack[ExpectOptions]) -> Any:  # noqa: ANN401  as above
        """Return what a column is expected to be given the others of each row, as `client.expect` does."""
        return self._client.expect(self.ref, rows, column, **options)

    def monitoring(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bucket: Literal["hour", "day"] = "day",
    ) -> Monitoring:
        """Return the counts of the rows that the model scored, and whether they have drifted.

        Args:
            since: Time in the first hour or day; None for seven days before `until`.
            until: Time before which the last one begins; None for now.
        """
        return self._client.models.monitoring(self.ref, since=since, until=until, bucket=bucket)

    def retrain(self, dataset: Dataset | str) -> "FittedModel":
        """Train the next version by the same request on another dataset, wait for it, and return it.

        Args:
            dataset: Dataset, such as a newer one, or its id.

        Raises:
            ApiError: The request that made the model is not known (`retrain-unavailable`).
            JobFailedError: The training failed.
        """
        dataset_id = dataset if isinstance(dataset, str) else dataset.id
        job = self._client.models.retrain(self.ref, dataset_id)
        ended = self._client.jobs.wait(job.id)
        return FittedModel(self._client, str(ended.ref))
