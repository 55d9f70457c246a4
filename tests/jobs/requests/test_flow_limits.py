"""What flows take is at most what their specs say beforehand, or nothing of them is built."""

import dataclasses
import itertools
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from flows import (
    FAMILIES,
    FlowError,
    MadeSpec,
    NafSpec,
    NsfSpec,
    PlanarSpec,
    flow_cost,
    spec_from_dict,
)
from flows.defaults import default_flow
from flows.specs.spec import EncoderSpec
from models_store.errors import RequestError
from models_store.requests.accept_training import training_bytes
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow, check_model
from tests.store.peaks import Measurer

MIB = 2**20
# What Python, the allocator and a first call keep beside what a flow takes.
SLACK = 8 * MIB
SERVED = TrainingLimits(
    max_parameters=50_000_000, max_layers=256, max_memory_bytes=2**32, max_model_bytes=2**30
)


@pytest.fixture(scope="module")
def measurer() -> Iterator[Measurer]:
    found = Measurer()
    yield found
    found.close()


def estimated(task: dict[str, Any]) -> dict[str, int]:
    """The estimate of each thing that is measured."""
    spec, rows = spec_from_dict(task["spec"]), task["rows"]
    cost = flow_cost(spec, task["dim"], task["context_dim"])
    table = 24 * 8 * rows * (task["dim"] + task["context_dim"])
    density = table + cost.density.apply(rows)
    return {
        "build": cost.load_bytes,
        "train": training_bytes(cost, batch_size=rows) + table,
        "load": cost.load_bytes,
        "score": density,
        "inverse": density,
        "sample": table + cost.sampling.apply(max(rows, 64)),
    }


def assert_within(measured: dict[str, int], task: dict[str, Any]) -> None:
    expected = estimated(task)
    wrong = {k: (v, expected[k]) for k, v in measured.items() if v > expected[k] + SLACK}
    assert not wrong, (task, wrong)


# Those that are trained in compiled loops, by autograd, and without gradients.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "dim", "context_dim"),
    [
        ({"family": "maf"}, 16, 0),
        ({"family": "nsf"}, 16, 0),
        ({"family": "gaussian_mixture"}, 16, 0),
        ({"family": "naf", "units": 200}, 8, 3),
        ({"family": "mixed", "flow": {"family": "maf"}, "missing": "any"}, 16, 0),
        ({"family": "realnvp", "layers": 8, "hidden": [2000]}, 40, 0),
    ],
)
def test_a_spec_takes_what_it_says_and_not_much_less(measurer, spec, dim, context_dim):
    what = ["train", "sample"]
    task = {"spec": spec, "dim": dim, "context_dim": context_dim, "rows": 500, "what": what}
    measured, expected = measurer.measure(task), estimated(task)
    assert_within(measured, task)
    for name in ("build", "train", "load"):
        assert expected[name] <= 4 * measured[name] + 24 * MIB, (name, measured, expected)


@pytest.mark.parametrize(
    ("spec", "dim", "field"),
    [
        ({"family": "made", "masks": 10**9}, 3, "masks"),
        ({"family": "naf", "units": 3_000, "transformer": "ddsf", "hidden": [1]}, 30, "units"),
        ({"family": "maf", "hidden": [10**6, 10**6]}, 3, "hidden"),
        ({"family": "realnvp", "layers": 2**31}, 3, "layers"),
        ({"family": "made", "hidden": [1] * 257}, 3, "hidden"),
        ({"family": "nsf", "layers": 1, "bins": 500, "hidden": [4]}, 4000, "bins"),
        ({"family": "maf", "encoder": {"hidden": [1] * 1000}}, 3, "encoder"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_spec_that_takes_gigabytes_is_refused_by_its_field(spec, dim, field):
    described = Described(spec_from_dict(spec), dim, 2 if "encoder" in spec else 0)
    with pytest.raises(RequestError) as caught:
        check_flow(described, limits=SERVED)
    assert caught.value.slug in ("limit-memory", "limit-parameters")
    assert caught.value.pointer == f"/flow/{field}"
    assert f"lower `flow.{field}`" in caught.value.detail


def test_a_flow_of_which_a_row_keeps_others_waiting_is_refused():
    for spec, dim in (
        (NsfSpec(layers=25, hidden=[16]), 200),
        (MadeSpec(conditional="mixture", hidden=[16]), 400),
        (PlanarSpec(layers=4_100), 10),
        (NafSpec(layers=1, hidden=[8], units=200, transformer="ddsf"), 100),
    ):
        with pytest.raises(RequestError, match="one after another"):
            check_model(Described(spec, dim), max_bytes=2**40)


def test_the_flow_of_the_widest_table_is_not_refused():
    for rows in (1_000, 50_000, 1_000_000):
        check_model(Described(default_flow(rows, 4_096), 4_096), max_bytes=2**40)


def test_flows_of_the_papers_are_not_refused():
    for spec, dim in (
        (MadeSpec(conditional="bernoulli", hidden=[500], masks=32), 784),
        (NafSpec(layers=5, hidden=[1024], units=16), 63),
        (NsfSpec(layers=10, hidden=[256, 256], bins=8, linear=True), 63),
    ):
        check_flow(Described(spec, dim), limits=SERVED)


def fields_of(cls: type) -> dict[str, Any]:
    """Names of a dataclass's fields, and their types."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _numbers(kind: Any) -> bool:
    return kind in (int, int | None, list[int]) or kind == (EncoderSpec | None)


def _of_size(kind: Any, size: int) -> Any:
    if kind == list[int]:
        return [size]
    return EncoderSpec([size]) if kind == (EncoderSpec | None) else size


def _variants(cls: type) -> Iterator[dict[str, Any]]:
    """Every choice of the fields that are choices."""
    choices = {
        name: get_args(kind) if get_origin(kind) is Literal else (False, True)
        for name, kind in fields_of(cls).items()
        if kind is bool or get_origin(kind) is Literal
    }
    for chosen in itertools.product(*choices.values()):
        yield dict(zip(choices, chosen, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_spec_counts(family):
    """For some choice of the others, more of it is more in the estimate; its greatest is refused."""
    cls = typing.cast(Any, FAMILIES[family])
    for field, kind in fields_of(cls).items():
        if not _numbers(kind):
            continue
        least, more, most = (_of_size(kind, size) for size in (2, 64, 2**31))
        context_dim = 2 if isinstance(least, EncoderSpec) else 0
        counted = False
        for choices in _variants(cls):
            try:
                few, many = (cls(**{**choices, field: value}) for value in (least, more))
                low, high = (flow_cost(spec, 100, context_dim) for spec in (few, many))
            except ValueError:
                continue
            if high.load_bytes > low.load_bytes and high.row_bytes >= low.row_bytes:
                counted = True
                with pytest.raises((RequestError, ValueError, FlowError)):
                    check_flow(
                        Described(cls(**{**choices, field: most}), 100, context_dim), limits=SERVED
                    )
        assert counted, field


def test_a_model_that_is_too_large_is_named_without_a_field_of_the_request():
    with pytest.raises(RequestError) as caught:
        check_model(Described(MadeSpec(masks=10**6), 8, pointer=None), max_bytes=2**30)
    assert (caught.value.slug, caught.value.pointer) == ("limit-memory", "")
    assert "MiB" in caught.value.detail
