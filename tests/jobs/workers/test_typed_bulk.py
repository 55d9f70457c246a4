"""Bulk jobs of typed columns as plain calls, on real files."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest
import torch

from flows import CompiledFlow, Flow, MixedColumn, compile_flow, rank_among, spec_to_dict
from flows.mixed.companion_fitting import fit_companion
from models_store.files.blobs import model_key, table_key
from models_store.files.checkpoints import save_model
from models_store.requests.bulk import AcceptedImputation, AcceptedSampling, AcceptedScoring
from tabular.columns import UNSEEN, Column
from tabular.typed_rows import TypedRows
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.jobs.workers.place import Place, epochs, run
from tests.jobs.workers.test_bulk import common, file_of, held_out, produced
from workers.protocol import (
    BulkTask,
    DatasetRef,
    ImputationTask,
    Interrupted,
    KeptRef,
    ModelRef,
    SamplingTask,
    ScoringTask,
)

ROWS = mixed_rows(600, seed=5)
# The table that is scored has the levels of `cut` in another order, one more of them, and text of
# numbers where the model has numbers; one column is not the model's.
CUT = Column(
    name="cut", type="category", levels=("=1+1", "Astor", "Ideal", "Good, really"), missing=True
)
DOORS = Column(name="doors", type="category", levels=("5", "3"))
YEAR = Column(name="year")
NUMBERS = (pa.float64(), pa.int64())
OWN = [
    DOORS,
    Column(name="comment", type="category", levels=("a", "b")),
    CUT,
    *(COLUMNS[place] for place in (5, 1, 2, 3)),
]


@functools.cache
def compiled() -> CompiledFlow:
    return compile_flow(mixed_flow())


@functools.cache
def answering() -> Flow:
    flow, rows = mixed_flow(), torch.from_numpy(ROWS)
    flow.companion = fit_companion(flow, rows[:400], rows[400:], seed=0)
    return flow


def stored() -> Any:
    """The same rows as the table holds them."""
    cut = np.where(
        np.isnan(ROWS[:, 0]), np.nan, np.array([2, 3, 0])[np.nan_to_num(ROWS[:, 0]).astype(int)]
    )
    doors = np.where(ROWS[:, 4] == 5, 0.0, 1.0)
    return np.column_stack([doors, np.zeros(len(ROWS)), cut, ROWS[:, [5, 1, 2, 3]]])


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.trainer.products.CPU_STEP_ROWS", 256)
    monkeypatch.setattr("tabular.writers.GROUP_ROWS", 300)


def typed(place: Place, spec: Any = SPEC, flow: Any = None, **changes: Any) -> dict[str, Any]:
    types = [*TYPES, *(YEAR.to_dict() for _ in spec.context)]
    saved = save_model(
        place.blobs,
        model_key("job_" + "4" * 32, 1),
        flow or mixed_flow(spec),
        spec=spec,
        columns=NAMES,
        context_columns=["year"] * len(spec.context),
        types=types,
        preprocessing={"standardise": True},
    )
    model = ModelRef(
        key=saved.key,
        sha256=saved.sha256,
        flow=spec_to_dict(spec),
        columns=NAMES,
        types=types,
        quantiles=held_out().tolist(),
        held_out_rows=500,
    )
    return common(place, **changes) | {"model": model}


def scoring(place: Place, rows: Any = None, own: list[Column] = OWN, **changes: Any) -> ScoringTask:
    dataset_id = "ds_" + "1" * 32
    with place.blobs.staged(".npy") as path:
        with path.open("wb") as file:
            np.save(file, stored() if rows is None else rows)
        blob = place.blobs.commit(path, table_key(dataset_id))
    fields = {"output": "parquet", "include_rows": False, "parts": False, "explain": False}
    request = {name: changes.pop(name, value) for name, value in fields.items()}
    reference = changes.pop("reference", None)
    accepted = AcceptedScoring(model="m:1", dataset_id=dataset_id, columns=NAMES, **request)
    types = [column.to_dict() for column in own]
    table = DatasetRef(id=dataset_id, key=blob.key, sha256=blob.sha256, types=types)
    return ScoringTask(
        request=accepted.model_dump(), dataset=table, reference=reference, **typed(place, **changes)
    )


def scoring_with_ids(place: Place, ids: list[str], **changes: Any) -> ScoringTask:
    """A job that writes a column that is not modelled, `id`, beside the scores."""
    with place.blobs.staged(".parquet") as path:
        pq.write_table(pa.table({"1": pa.array(ids, pa.string())}), path, row_group_size=25)
        blob = place.blobs.commit(path, "datasets/ds_" + "1" * 32 + "/cells.parquet")
    everything = [OWN[0], Column(name="id", type="ignored"), *OWN[1:]]
    types = [column.to_dict() for column in everything]
    kept = KeptRef(key=blob.key, sha256=blob.sha256, types=types)
    task = scoring(place, include_rows=True, **changes)
    return task.model_copy(update={"dataset": task.dataset.model_copy(update={"kept": kept})})


def sampling(place: Place, output: Any, **changes: Any) -> SamplingTask:
    accepted = AcceptedSampling(model="m:1", n=700, seed=7, output=output, context=None)
    return SamplingTask(request=accepted.model_dump(), **typed(place, **changes))


def imputation(
    place: Place, output: Any = "csv", given: list[str] = NAMES, **changes: Any
) -> ImputationTask:
    """A job that fills gaps of a table with ids."""
    own = scoring_with_ids(place, [f"id {number}" for number in range(len(ROWS))]).dataset
    common = typed(place, flow=answering(), **changes)
    accepted = AcceptedImputation(
        model="m:1", dataset_id=own.id, output=output, given=given, fill="draw", level=0.9, seed=3
    )
    return ImputationTask(request=accepted.model_dump(), dataset=own, **common)


def table_of(place: Place, task: BulkTask) -> Any:
    return pq.read_table(file_of(place, run(task)))


def test_levels_with_other_indices_are_scored_by_their_texts(place: Place) -> None:
    table = table_of(place, scoring(place))
    np.testing.assert_allclose(table["log_prob"], compiled().log_prob(ROWS), rtol=1e-5)
    ranks = rank_among(compiled().log_prob(ROWS), held_out(), rows=500)
    np.testing.assert_allclose(table["quantile"], ranks, atol=1e-5)


def test_a_level_that_the_model_lacks_is_unseen(place: Place) -> None:
    rows, expected = stored(), ROWS.copy()
    rows[:, 2], expected[:, 0] = 1.0, UNSEEN
    table = table_of(place, scoring(place, rows))
    np.testing.assert_allclose(table["log_prob"], compiled().log_prob(expected), rtol=1e-5)


def test_parts_and_explanations_are_columns(place: Place) -> None:
    messages = run(scoring(place, parts=True, explain=True))
    table = pq.read_table(file_of(place, messages))
    explained = [f"{what}.{name}" for what in ("explanation", "difference") for name in NAMES]
    assert table.column_names == ["log_prob", "quantile", "discrete", "continuous", *explained]
    numbers = np.column_stack([column.to_numpy() for column in table.columns])
    np.testing.assert_allclose(numbers[:, 2:4], compiled().log_prob_parts(ROWS), rtol=1e-5)
    terms = compiled().explain(ROWS)
    np.testing.assert_allclose(numbers[:, 4:10], terms, rtol=1e-3, atol=1e-4)
    # Without the dataset of the model, samples tell what is usual.
    usual = np.median(compiled().explain(compiled().sample(200, seed=0)), axis=0)
    np.testing.assert_allclose(numbers[:, 10:], terms - usual, rtol=1e-3, atol=1e-3)
    metrics = produced(messages).metrics
    assert metrics["non_finite"] == 0, "columns without explanation are not bad"
    assert metrics["usual"]["price"] is None
    assert metrics["usual"]["cut"] == pytest.approx(usual[0], abs=1e-3)
    assert metrics["explained"] == {
        name: "unavailable" if np.isnan(term) else "exact"
        for name, term in zip(NAMES, usual, strict=True)
    }


def test_what_is_usual_comes_from_the_dataset_of_the_model(place: Place) -> None:
    """A table of one row, whose own terms are then the usual ones; of other types it is passed over."""
    rows, types = ROWS[:1], [column.to_dict() for column in COLUMNS]
    with place.blobs.staged(".npy") as path:
        with path.open("wb") as file:
            np.save(file, rows)
        blob = place.blobs.commit(path, table_key("ds_" + "2" * 32))
    reference = DatasetRef(id="ds_" + "2" * 32, key=blob.key, sha256=blob.sha256, types=types)
    own = produced(run(scoring(place, explain=True, reference=reference))).metrics["usual"]
    terms = compiled().explain(rows)[0]
    assert own["cut"] == pytest.approx(terms[0], abs=1e-3)
    ignored = reference.model_copy(update={"types": types[1:]})
    samples = produced(run(scoring(place, explain=True))).metrics["usual"]
    assert samples["cut"] != pytest.approx(terms[0], abs=1e-3)
    for other in (ignored, reference.model_copy(update={"sha256": "0" * 64})):
        messages = run(scoring(place, explain=True, reference=other))
        assert produced(messages).metrics["usual"] == samples


@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_rows_beside_scores_have_the_cells_of_the_table(place: Place, output: str) -> None:
    path = file_of(place, run(scoring(place, include_rows=True, output=output)))
    table = pq.read_table(path) if output == "parquet" else pa_csv.read_csv(path)
    names = [column.name for column in OWN]
    assert table.column_names == [*names, "log_prob", "quantile"]
    expected = TypedRows(OWN).batch(stored())
    for column in ("cut", "sold", "price"):
        found = [None if cell == "" else cell for cell in table[column].to_pylist()]
        assert found == expected.column(column).to_pylist()


def test_a_csv_result_tells_which_columns_hold_text(place: Place) -> None:
    names = [column.name for column in OWN]
    result = produced(run(scoring(place, include_rows=True, output="csv"))).result
    texts = [names[at] for at in result["texts"]]
    schema = TypedRows(OWN).schema
    assert texts == [name for name in names if schema.field(name).type not in NUMBERS]
    assert "cut" in texts
    assert produced(run(scoring(place, output="csv"))).result["texts"] == []


@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_samples_are_cells(place: Place, output: str) -> None:
    path = file_of(place, run(sampling(place, output)))
    table = pq.read_table(path) if output == "parquet" else pa_csv.read_csv(path)
    expected = TypedRows(COLUMNS).batch(compiled().sample(700, seed=7))
    for name in ("cut", "sold", "price", "doors", "weight"):
        found = [None if cell == "" else cell for cell in table[name].to_pylist()]
        assert found == expected.column(name).to_pylist()


def test_samples_of_npy_are_numbers(place: Place) -> None:
    values = np.load(file_of(place, run(sampling(place, "npy"))), allow_pickle=False)
    np.testing.assert_array_equal(
        values, TypedRows(COLUMNS).numbers(compiled().sample(700, seed=7))
    )


def test_filled_cells_of_npy_have_the_decimals_of_their_column(place: Place) -> None:
    task = imputation(place, "npy")
    [at] = [at for at, one in enumerate(task.dataset.types) if one["name"] == "price"]
    task.dataset.types[at]["decimals"] = 0
    filled = np.load(file_of(place, run(task)), allow_pickle=False)[:, at]
    assert (filled == np.rint(filled)).all()


def test_gaps_are_filled_and_other_cells_stay(place: Place) -> None:
    given = [name for name in NAMES if name != "on"]
    messages = run(imputation(place, "parquet", given))
    table = pq.read_table(file_of(place, messages))
    own = [column.name for column in OWN]
    intervals = [f"{end}.{name}" for end in ("low", "high") for name in NAMES]
    assert table.column_names == [own[0], "id", *own[1:], *intervals]
    assert table["id"].to_pylist() == [f"id {number}" for number in range(len(ROWS))]
    known = TypedRows(OWN).batch(stored())
    for name in own:
        cells, filled = known.column(name).to_pylist(), table[name].to_pylist()
        assert None not in filled
        kept = [f for f, cell in zip(filled, cells, strict=True) if cell is not None]
        if name == "on":
            assert filled != cells, "it is not given"
        else:
            assert list(map(str, kept)) == [str(cell) for cell in cells if cell is not None]
    assert "uncertain_rows" in produced(messages).metrics
    low = table[f"low.{own[-2]}"].to_pylist()
    cells = known.column(own[-2]).to_pylist()
    assert [end is None for end in low] == [cell is not None for cell in cells]


def test_each_row_has_draws_of_its_own(place: Place) -> None:
    table = table_of(place, imputation(place, "parquet", ["doors"]))
    drawn = set(zip(*(table[name].to_pylist() for name in NAMES), strict=True))
    assert len(drawn) > len(ROWS) / 2, "the rows of a step have the draws of those before"


@pytest.mark.parametrize("kind", ["scoring", "sampling", "imputation"])
@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_an_interrupted_job_makes_the_same_file(place: Place, kind: str, output: str) -> None:
    def task(**changes: Any) -> BulkTask:
        if kind == "sampling":
            return sampling(place, output, **changes)
        if kind == "imputation":
            return imputation(place, output, **changes)
        return scoring(place, output=output, include_rows=True, explain=True, **changes)

    undisturbed = produced(run(task())).result
    asked = iter(range(1, 10_000))
    first = run(task(attempt=2), lambda: next(asked) >= 3)
    assert isinstance(first[-1], Interrupted)
    known = [message.checkpoint for message in reversed(epochs(first))][:2]
    second = produced(run(task(attempt=3, checkpoints=known))).result
    assert second["sha256"] == undisturbed["sha256"]


@pytest.mark.parametrize("output", ["parquet", "csv"])
def test_columns_that_are_not_modelled_stand_beside_the_scores(place: Place, output: str) -> None:
    ids = [f"id {number}" for number in range(len(ROWS))]
    file = file_of(place, run(scoring_with_ids(place, ids, output=output)))
    table = pq.read_table(file) if output == "parquet" else pa_csv.read_csv(file)
    assert table.column_names[:3] == ["doors", "id", "comment"]
    assert table["id"].to_pylist() == ids
    assert len(table["log_prob"]) == len(ids)


def test_a_conditional_model_without_its_dataset_has_no_usual_rows(place: Place) -> None:
    spec = dataclasses.replace(SPEC, context=[MixedColumn()])
    given = np.linspace(0.0, 1.0, len(ROWS))[:, None]
    flow = mixed_flow(spec, context=given[:300])
    table = np.column_stack([stored(), given])
    task = scoring(place, table, [*OWN, YEAR], spec=spec, flow=flow, explain=True)
    task.request["columns"].append("year")
    done = produced(run(task))
    assert set(done.metrics["usual"].values()) == {None}
