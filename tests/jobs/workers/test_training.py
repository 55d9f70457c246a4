"""The work of a training job as a plain call, on real files."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows import FitState, compile_flow
from models_store.errors import BlobDiskError
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model, load_state, save_state
from models_store.files.store_address import StoreAddress
from models_store.job_states import JobKind
from models_store.records import Dataset
from models_store.requests.training import AcceptedSplit, AcceptedTraining
from models_store.splits import split_rows
from tabular.columns import Column
from tests.jobs.workers.place import EPOCHS, Place, epochs, ref, result, run, task_of
from tests.store.makers import claimed, split_of
from workers.errors import TrainingError, UnfitError
from workers.protocol import CheckpointRef, EpochDone, Interrupted, Message, Note, Tick
from workers.trainer.checkpoints import Checkpoints
from workers.trainer.devices import training_device
from workers.trainer.progress import Evaluation, Teller
from workers.trainer.training import train

BATCHES = 10  # of an epoch


@dataclass(frozen=True)
class Undisturbed:
    """A training that nobody disturbed, where it took place; tests leave both alone."""

    place: Place
    dataset: Dataset
    messages: list[Message]

    @property
    def sha256(self) -> str:
        return str(result(self.messages).version["checkpoint_sha256"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    dataset = place.add_dataset()
    yield Undisturbed(place, dataset, run(task_of(place, dataset)))
    place.database.dispose()


def test_the_best_model_is_stored_and_scores_as_its_metrics_say(undisturbed: Undisturbed) -> None:
    place, dataset = undisturbed.place, undisturbed.dataset
    trained = result(undisturbed.messages)

    version = trained.version
    flow = stored_flow(place, version)
    rows = np.load(place.blobs.path(dataset.key))
    known, validation, _ = split_rows(
        len(rows), AcceptedSplit(**task_of(place, dataset).request["split"])
    )
    with torch.no_grad():
        scores = flow.log_prob(torch.from_numpy(rows[validation])).double()
    mean, error = float(scores.mean()), float(scores.std()) / len(scores) ** 0.5
    assert mean == pytest.approx(trained.metrics["validation_log_likelihood"], abs=1e-5)
    assert error == pytest.approx(trained.metrics["validation_standard_error"], abs=1e-5)
    ends = [rows[known].min(axis=0), rows[known].max(axis=0)]
    extent = flow.preprocessing.extent
    assert extent is not None
    assert extent.numpy() == pytest.approx(np.stack(ends))
    assert trained.metrics["train_rows"] == 480
    assert trained.metrics["validation_rows"] == 60
    assert version["metrics"] == trained.metrics
    assert version["dataset_sha256"] == dataset.sha256


@pytest.mark.parametrize("part", ["test", "validation"])
def test_scores_are_calibrated_by_rows_that_training_never_saw(place: Place, part: str) -> None:
    dataset = place.add_dataset()
    split = {} if part == "test" else {"split": {"test": 0}}
    task = task_of(place, dataset, request=split)

    version = result(run(task)).version

    flow = stored_flow(place, version)
    rows = np.load(place.blobs.path(dataset.key))
    _, validation, test = split_rows(len(rows), AcceptedSplit(**task.request["split"]))
    told = "On held-out rows" if part == "test" else "On the validation rows, which chose"
    assert version["metrics"]["summary"][0].startswith(told)
    unusual = version["unusual"]
    unseen = [row for row, told in zip(unusual["rows"], unusual["held_out"], strict=True) if told]
    assert sorted(unseen) == sorted([*validation, *test])
    held_out = rows[test if part == "test" else validation]
    with torch.no_grad():
        exact = flow.log_prob(torch.from_numpy(held_out)).double().numpy()
    assert version["held_out"]["rows"] == len(held_out) == 60
    quantiles = version["held_out"]["quantiles"]
    assert len(quantiles) == 1001
    assert quantiles == pytest.approx(
        np.quantile(exact, np.linspace(0, 1, 1001), method="higher"), abs=1e-3
    )


def test_each_epoch_is_told_once_with_its_metrics(undisturbed: Undisturbed) -> None:
    told = epochs(undisturbed.messages)

    assert [message.metrics["epoch"] for message in told] == list(range(1, EPOCHS + 1))
    first = told[0].metrics
    assert {
        "train_log_likelihood",
        "validation_log_likelihood",
        "best_epoch",
        "rows_per_second",
    } <= first.keys()
    assert told[0].checkpoint is not None
    assert [message.computed for message in told] == [False] * (EPOCHS - 1) + [True]
    assert told[-1].progress["fraction"] == 1.0


@pytest.mark.parametrize("batch", [1, 17])
def test_interrupted_at_any_batch_it_makes_the_same_model(place, batch, undisturbed):
    dataset = place.add_dataset()
    asked = iter(range(1, 10_000))

    messages = run(task_of(place, dataset), lambda: next(asked) == batch)

    last = messages[-1]
    assert isinstance(last, Interrupted)
    assert last.checkpoint is not None
    resumed = run(task_of(place, dataset, attempt=2, checkpoints=[last.checkpoint]))
    assert result(resumed).version["checkpoint_sha256"] == undisturbed.sha256
    told = [message.metrics["epoch"] for message in epochs(messages) + epochs(resumed)]
    assert told == list(range(1, EPOCHS + 1))


def test_a_training_that_ends_while_its_disk_is_full_ends_without_its_state(place: Place) -> None:
    store = StoreAddress(url=str(place.blobs.root), leave_bytes=10**18)
    messages = run(task_of(place, place.add_dataset(), store=store), lambda: True)
    assert isinstance(messages[-1], Interrupted)
    assert messages[-1].checkpoint is None


def test_the_evaluation_tells_what_is_left_of_it(place: Place, undisturbed: Undisturbed) -> None:
    messages = run(task_of(place, place.add_dataset(), tick_s=0.0))
    last = max(at for at, message in enumerate(messages) if isinstance(message, EpochDone))
    ticks = [message.progress for message in messages[last:] if isinstance(message, Tick)]
    assert {one["epoch"] for one in ticks} == {EPOCHS}
    assert ticks[-1]["eta_seconds"] == 0.0
    assert result(messages).version["checkpoint_sha256"] == undisturbed.sha256


def test_an_evaluation_tells_of_no_more_rows_than_there_are(place: Place) -> None:
    told = list[Message]()
    task = task_of(place, place.add_dataset(), tick_s=0.0)
    evaluation = Evaluation(700, Teller(task, told.append, bool))
    for _ in range(2):
        evaluation.scored(512)
    rows = [message.progress["rows"] for message in told if isinstance(message, Tick)]
    assert rows == [512, 700]


def test_an_evaluation_that_is_interrupted_is_repeated(place, undisturbed):
    dataset, told = place.add_dataset(), list[Message]()

    def after_training() -> bool:
        return any(isinstance(message, EpochDone) and message.computed for message in told)

    train(task_of(place, dataset), told.append, interrupted=after_training)

    last = told[-1]
    assert isinstance(last, Interrupted)
    assert last.checkpoint is not None
    assert last.metrics == epochs(told)[-1].metrics
    again = run(task_of(place, dataset, attempt=2, checkpoints=[last.checkpoint]))
    assert [message.metrics["epoch"] for message in epochs(again)] == [EPOCHS]
    assert result(again).version["checkpoint_sha256"] == undisturbed.sha256
    assert result(again).version["held_out"] == result(undisturbed.messages).version["held_out"]


def test_checkpoints_within_an_epoch_make_the_same_model(place, undisturbed):
    dataset = place.add_dataset()

    messages = run(task_of(place, dataset, long_epoch_s=0))

    saved = [told.checkpoint for told in epochs(messages) if told.checkpoint is not None]
    assert [at.step for at in saved] == sorted(at.step for at in saved)
    within = [at for at in saved if at.step % BATCHES]
    assert len(within) > EPOCHS
    assert len({at.key for at in saved}) == len(saved)
    for at in (within[0], within[-1]):
        resumed = run(task_of(place, dataset, attempt=2, checkpoints=[at]))
        assert result(resumed).version["checkpoint_sha256"] == undisturbed.sha256


HARMS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize(("harm", "harmed"), [("missing", 1), ("cut", 2), ("flipped", 1)])
def test_a_bad_checkpoint_gives_way_to_the_one_before_or_to_none(place, undisturbed, harm, harmed):
    shutil.copytree(undisturbed.place.blobs.root, place.blobs.root, dirs_exist_ok=True)
    dataset, told = undisturbed.dataset, epochs(undisturbed.messages)
    saved = [message.checkpoint for message in told if message.checkpoint is not None]
    newest, before = saved[2], saved[1]
    for at in [newest, before][:harmed]:
        HARMS[harm](place.blobs.path(at.key))

    messages = run(task_of(place, dataset, attempt=2, checkpoints=[newest, before]))

    notes = [message.text for message in messages if isinstance(message, Note)]
    assert len([text for text in notes if "unusable" in text]) == harmed
    starts_at = before.epoch + 1 if harmed == 1 else 1
    assert epochs(messages)[0].metrics["epoch"] == starts_at
    assert result(messages).version["checkpoint_sha256"] == undisturbed.sha256


def test_divergence_is_told_and_nothing_is_stored(place: Place) -> None:
    optimisation = {"optimiser": "sgd", "learning_rate": 100.0, "max_epochs": 50, "seed": 1}
    task = task_of(place, place.add_dataset(), request={"optimisation": optimisation})

    with pytest.raises(TrainingError, match="epoch") as failure:
        run(task)

    assert failure.value.code == "diverged"
    assert place.blobs.keys("models") == []


def test_a_device_that_is_not_there_is_never_replaced(place: Place) -> None:
    with pytest.raises(UnfitError, match="cuda:99") as failure:
        run(task_of(place, place.add_dataset(), device="cuda:99"))

    assert failure.value.code == "device_unavailable"


def test_small_steps_stay_on_the_processor_unless_a_device_is_named(place: Place) -> None:
    request = AcceptedTraining.model_validate(task_of(place, place.add_dataset()).request)
    assert training_device("auto", request) == torch.device("cpu")


def test_a_table_that_was_changed_on_disk_is_not_trained_on(place: Place) -> None:
    dataset = place.add_dataset()
    path = place.blobs.path(dataset.key)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")

    with pytest.raises(TrainingError) as failure:
        run(task_of(place, dataset))

    assert failure.value.code == "dataset_corrupt"


def test_datasets_of_their_own_are_used_whole_for_validation_and_test(place: Place) -> None:
    dataset, validation, test = (place.add_dataset(rows=rows) for rows in (600, 77, 55))
    fractions = {"train": 1.0, "validation": 0.0, "test": 0.0}
    others = {"validation_dataset_id": validation.id, "test_dataset_id": test.id}
    split = split_of(**fractions, **others)
    accepted = AcceptedTraining.model_validate(task_of(place, dataset).request)
    place.start(JobKind.TRAINING, accepted.model_copy(update={"split": split}))

    metrics = result(run(place.assigned(claimed(place.work)))).metrics

    rows = [metrics[f"{part}_rows"] for part in ("train", "validation", "test")]
    assert rows == [600, 77, 55]


def test_the_columns_are_modelled_in_the_order_that_was_asked_for(place: Place) -> None:
    dataset = place.add_dataset()
    task = task_of(place, dataset, request={"columns": ["x3", "x1"]})

    version = result(run(task)).version

    flow = stored_flow(place, version)
    rows = np.load(place.blobs.path(dataset.key))
    train_rows, _, _ = split_rows(len(rows), AcceptedSplit(**task.request["split"]))
    assert flow.preprocessing.standardise is not None
    means = rows[train_rows][:, [2, 0]].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(flow.preprocessing.standardise.mean.numpy(), means, rtol=1e-6)
    assert version["columns"] == ["x3", "x1"]


def test_a_conditional_flow_is_trained_and_stored_with_its_context(place: Place) -> None:
    dataset = place.add_dataset()
    request = {"context_columns": ["x2"], "flow": {"family": "maf", "layers": 1, "hidden": [8]}}
    trained = result(run(task_of(place, dataset, request=request)))
    version = trained.version
    assert (version["columns"], version["context_columns"]) == (["x1", "x3"], ["x2"])
    flow = stored_flow(place, version)
    assert (flow.dim, flow.context_dim) == (2, 1)
    table = torch.from_numpy(np.load(place.blobs.verify(dataset.key, dataset.sha256)))
    order = table[:, [0, 2, 1]].double()
    _, _, test = split_rows(len(table), split_of())
    with torch.no_grad():
        mean = float(flow.double().log_prob_of_table(order[test]).mean())
    assert mean == pytest.approx(trained.metrics["test_log_likelihood"], abs=1e-4)


def stored_flow(place: Place, version: dict[str, Any]) -> Any:
    return load_model(place.blobs, version["checkpoint_key"], version["checkpoint_sha256"])


def replace_rows(place: Place, dataset: Dataset, rows: np.ndarray[Any, Any]) -> Dataset:
    """The same dataset with other rows in its file."""
    with place.blobs.staged(".npy") as staged:
        np.save(staged, rows)
        blob = place.blobs.commit(staged, dataset.key)
    return replace(dataset, sha256=blob.sha256)


def test_discrete_and_spiky_columns_get_noise(place: Place) -> None:
    dataset = place.add_dataset()
    rows = np.load(place.blobs.path(dataset.key)).copy()
    rows[:, 0] = np.round(rows[:, 0] * 2)
    rows[::3, 2] = 0.0
    dataset = replace_rows(place, dataset, rows)

    messages = run(task_of(place, dataset))

    version = result(messages).version
    flow = stored_flow(place, version)
    assert flow.preprocessing.steps is not None
    assert flow.preprocessing.steps.tolist() == [1.0, 0.0, 0.0]
    assert flow.preprocessing.widths is not None
    assert (flow.preprocessing.widths > 0).tolist() == [True, False, True]
    drawn = compile_flow(flow).sample(2000, seed=0)
    assert np.mean(drawn[:, 2] == 0.0) > 0.1  # a few epochs do not reach the third of the rows
    saved = [message.checkpoint for message in epochs(messages) if message.checkpoint]
    again = run(task_of(place, dataset, attempt=2, checkpoints=[saved[-1]]))
    assert result(again).version["checkpoint_sha256"] == version["checkpoint_sha256"]


def test_a_restart_after_divergence_is_told(place: Place) -> None:
    optimisation = {"optimiser": "sgd", "learning_rate": 15.0, "max_epochs": 3, "seed": 1}
    optimisation["max_gradient_norm"] = 1e6
    task = task_of(place, place.add_dataset(), request={"optimisation": optimisation})

    messages = run(task)

    notes = [message.text for message in messages if isinstance(message, Note)]
    assert len([note for note in notes if "a tenth of the learning rate" in note]) == 1
    assert result(messages).metrics["restarts"] == 1


def test_a_validation_row_of_density_0_is_null_in_the_metrics(place: Place) -> None:
    dataset = place.add_dataset()
    rows = np.load(place.blobs.path(dataset.key)).astype(np.float64)
    split = AcceptedSplit(**task_of(place, dataset).request["split"])
    rows[split_rows(len(rows), split)[1][0], 1] = 1e30
    dataset = replace_rows(place, dataset, rows)

    metrics = epochs(run(task_of(place, dataset)))[0].metrics

    assert metrics["validation_log_likelihood"] is None
    assert -100 < metrics["robust_validation_log_likelihood"] < 0


def test_a_table_larger_than_memory_is_trained_on_by_a_sample(place: Place) -> None:
    dataset = place.add_dataset()
    rows = np.load(place.blobs.path(dataset.key))
    dataset = replace_rows(place, dataset, rows[rows[:, 0].argsort()])
    request = {"context_columns": ["x3"]}
    whole = run(task_of(place, dataset, request=request, memory_bytes=None))
    some = run(task_of(place, dataset, request=request, memory_bytes=30_000))
    taken = [result(messages).metrics["train_rows"] for messages in (whole, some)]
    assert taken[0] == 480
    assert 100 <= taken[1] <= 240
    told = [message.text for message in some if isinstance(message, Note)]
    assert any(f"takes {taken[1]} of 480, evenly spread" in text for text in told)
    reached = [result(messages).metrics["test_log_likelihood"] for messages in (whole, some)]
    assert reached[1] == pytest.approx(reached[0], abs=0.5)


class AwayBucket(Blobs):
    """A store that counts as remote, and is away at times."""

    away = False

    @contextmanager
    def staged(self, suffix: str = "") -> Iterator[Path]:
        if self.away:
            raise BlobDiskError("bucket", "is away")
        with super().staged(suffix) as path:
            self.is_remote = False
            yield path
            self.is_remote = True


def test_a_bucket_that_is_away_costs_a_checkpoint_only(place: Place) -> None:
    bucket, sent = AwayBucket.in_folder(place.blobs.root), list[Message]()
    task = task_of(place, place.add_dataset())
    checkpoints = Checkpoints(task, bucket, Teller(task, sent.append, bool), unit="epoch")
    state = FitState(
        {"weight": torch.ones(1)}, {"batches": 1, "progress": {"epoch": 2, "batches": 0}}
    )
    bucket.away = bucket.is_remote = True
    checkpoints.report(lambda: state)
    bucket.away = False
    checkpoints.report(lambda: state)
    assert [type(message) for message in sent] == [Note, EpochDone, EpochDone]
    assert [told.checkpoint and told.checkpoint.epoch for told in epochs(sent)] == [None, 2]


def with_moments(state: FitState) -> FitState:
    """The state of another optimiser."""
    moments = {key: torch.zeros(7) for key in state.tensors if key.endswith("exp_avg")}
    return FitState(state.tensors | moments, state.meta)


OTHERS: dict[str, Callable[[FitState], FitState]] = {
    "flow": lambda state: FitState(state.tensors | {"flow/added": torch.zeros(1)}, state.meta),
    "optimiser": with_moments,
    "options": lambda state: FitState(state.tensors, {**state.meta, "seed": 12345}),
    "progress": lambda state: FitState(state.tensors, {**state.meta, "progress": {}}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_version_of_the_code_means_from_the_beginning(place, other):
    dataset = place.add_dataset()
    whole = run(task_of(place, dataset))
    at = epochs(whole)[1].checkpoint
    assert at is not None
    state = OTHERS[other](load_state(place.blobs, at.key, at.sha256))
    stored = save_state(place.blobs, "jobs/old/1-2.safetensors", state)
    old = CheckpointRef(key=stored.key, sha256=stored.sha256, epoch=2, step=20)

    again = run(task_of(place, dataset, attempt=2, checkpoints=[old]))

    notes = [message.text for message in again if isinstance(message, Note)]
    assert len(notes) == 1
    assert "epoch 2" in notes[0]
    assert "from the beginning" in notes[0]
    assert epochs(again)[0].metrics["epoch"] == 1
    assert result(again).version["checkpoint_sha256"] == result(whole).version["checkpoint_sha256"]


TYPES = [
    Column(name="x1", decimals=1, missing=True, transform="quantiles"),
    Column(name="x2", type="category", levels=("red", "green", "blue")),
    Column(name="x3", transform="log", low=0.0, spikes=(0.0,)),
    Column(name="x4", type="integer", levels=(1.0, 2.0, 5.0)),
]
REQUEST: dict[str, Any] = {
    "flow": {"family": "maf", "layers": 2, "hidden": [16], "batch_norm": None}
}

LONGER = {"seed": 1, "max_epochs": 40, "patience": 40, "batch_size": 50, "learning_rate": 0.01}


def cells(rows: int = 600, *, seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    color = random.choice(3, rows, p=[0.6, 0.3, 0.1])
    size = np.round(random.normal(10.0 * color, 1.0), 1)
    size[random.random(rows) < 0.2] = np.nan
    amount = np.exp(random.normal(color, 0.5))
    amount[random.random(rows) < 0.3] = 0.0
    return np.stack([size, color, amount, random.choice([1.0, 2.0, 5.0], rows)], axis=1)


def trained(place: Place, **fields: Any) -> Any:
    return result(run(task_of(place, place.add_table(cells(), TYPES), request=REQUEST | fields)))


def test_the_model_scores_rows_with_gaps_and_samples_valid_cells(place: Place) -> None:
    version = trained(place, optimisation=LONGER).version

    assert version["family"] == "mixed"
    assert [Column.from_dict(fields) for fields in version["types"]] == TYPES
    flow = stored_flow(place, version)
    compiled = compile_flow(flow, device=torch.device("cpu"))
    assert np.isfinite(compiled.log_prob(cells(100, seed=1))).all()
    rows = compiled.sample(2000, seed=0)
    assert np.isin(rows[:, 1], [0, 1, 2]).all()
    assert np.isin(rows[:, 3], [1, 2, 5]).all()
    assert (rows[:, 2] >= 0).all()
    assert np.isnan(rows[:, 0]).mean() == pytest.approx(0.2, abs=0.1)
    assert (rows[:, 2] == 0).mean() == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("missing", ["observed", "any"])
def test_interrupted_at_any_batch_it_makes_the_same_model_of_mixed_rows(place, missing):
    whole = trained(place, missing=missing)
    table = place.add_table(cells(), TYPES)
    fields = REQUEST | {"missing": missing}
    asked = iter(range(1, 10_000))
    last = run(task_of(place, table, request=fields), lambda: next(asked) == 17)[-1]
    assert isinstance(last, Interrupted)
    assert last.checkpoint is not None
    resumed = result(
        run(task_of(place, table, request=fields, attempt=2, checkpoints=[last.checkpoint]))
    )
    assert resumed.version["checkpoint_sha256"] == whole.version["checkpoint_sha256"]


def test_a_table_of_levels_alone_trains_and_its_samples_are_levels(place: Place) -> None:
    levels, types = cells()[:, [1, 3]], [replace(TYPES[1], name="x1"), replace(TYPES[3], name="x2")]
    version = result(
        run(task_of(place, place.add_table(levels, types), request={"flow": None}))
    ).version
    flow = stored_flow(place, version)
    rows = compile_flow(flow, device=torch.device("cpu")).sample(200, seed=0)
    assert np.isin(rows[:, 0], [0, 1, 2]).all()
    assert np.isin(rows[:, 1], [1, 2, 5]).all()


def test_text_of_a_held_out_table_is_numbered_as_in_the_training_table(place: Place) -> None:
    table, held_out = cells(), cells(200, seed=5)
    other = [*TYPES[:1], Column(name="x2", type="category", levels=("blue", "red", "green"))]
    renumbered = held_out.copy()
    renumbered[:, 1] = np.array([1, 2, 0])[held_out[:, 1].astype(int)]
    found = []
    for rows, types in (
        (held_out, TYPES),
        (renumbered, [*other, *TYPES[2:]]),
        (held_out[:, ::-1], TYPES[::-1]),
    ):
        validation = place.add_table(rows, types)
        task = task_of(place, place.add_table(table, TYPES), request=REQUEST)
        own = {"validation": 0.0, "train": 0.9, "validation_dataset_id": validation.id}
        request = task.request | {"split": task.request["split"] | own}
        changes = {"validation_dataset": ref(validation), "request": request}
        metrics = result(run(task.model_copy(update=changes))).metrics
        found.append(metrics["validation_log_likelihood"])
    assert found[0] == found[1] == found[2]


def test_a_typed_context_conditions_the_density(place: Place) -> None:
    fields = {"columns": ["x1", "x3"], "context_columns": ["x2", "x4"], "optimisation": LONGER}
    version = trained(place, **fields).version
    flow = stored_flow(place, version)
    compiled = compile_flow(flow, device=torch.device("cpu"))
    context = np.array([[0.0, 1.0], [2.0, 1.0]])
    low = compiled.sample(500, seed=0, context=context[:1])
    high = compiled.sample(500, seed=0, context=context[1:])
    assert np.nanmean(high[:, 0]) > np.nanmean(low[:, 0]) + 5


def test_a_table_whose_types_were_corrected_trains_as_it_was_accepted(place: Place) -> None:
    task = task_of(place, place.add_table(cells(), TYPES), request=REQUEST)
    renumbered = cells()
    renumbered[:, 1] = np.array([1, 2, 0])[renumbered[:, 1].astype(int)]
    kinds = [TYPES[0], Column(name="x2", type="category", levels=("blue", "red", "green"))]
    changed = ref(place.add_table(renumbered, [*kinds, *TYPES[2:]]))
    first, second = (
        result(run(task.model_copy(update={"dataset": one}))) for one in (task.dataset, changed)
    )
    assert first.metrics["test_log_likelihood"] == second.metrics["test_log_likelihood"]


def test_a_table_that_lost_a_column_fails_its_job_with_the_reason(place: Place) -> None:
    task = task_of(place, place.add_table(cells(), TYPES), request=REQUEST)
    less = ref(place.add_table(cells()[:, :3], TYPES[:3]))
    with pytest.raises(TrainingError, match="types of dataset"):
        run(task.model_copy(update={"dataset": less}))


def test_the_fit_of_a_mixture_that_comes_first_goes_on_after_each_iteration(place):
    options = {"seed": 1, "max_epochs": 1, "batch_size": 100}
    request = {"flow": {"family": "gaussian_mixture"}, "optimisation": options}
    table = place.add_table(cells(), TYPES)
    whole = run(task_of(place, table, request=request))
    messages, attempts = run(task_of(place, table, request=request), lambda: True), 1
    while isinstance(last := messages[-1], Interrupted):
        assert last.checkpoint is not None
        ends = last.checkpoint.step == 0  # within the mixture's fit
        attempts += 1
        task = task_of(
            place, table, request=request, attempt=attempts, checkpoints=[last.checkpoint]
        )
        messages = run(task, partial(bool, ends and attempts < 7))
    assert attempts > 6, "one for each of some iterations of the mixture's fit"
    version = result(messages).version
    assert version["checkpoint_sha256"] == result(whole).version["checkpoint_sha256"]
    assert version["held_out"] == result(whole).version["held_out"]
