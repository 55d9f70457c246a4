"""The public clients of the Open Inference Protocol, unchanged, against a server process."""

import csv
import io
import json
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from starlette.testclient import TestClient
from tritonclient.http import (
    InferenceServerClient,
    InferenceServerClientPlugin,
    InferInput,
    InferRequestedOutput,
)
from tritonclient.utils import InferenceServerException

from app.inference.tensors import read_request
from app.inference.views import MAX_VALUES
from app.main import create_app
from app.problems.problem import Problem
from tabular.columns import Column
from tests.api.mixed_model import NAMES, TYPES, registered_mixed
from tests.api.serving import COLUMNS, a_flow, registered, stores

ROWS = np.array([[171.5, 68.2, 30.0], [180.1, 80.9, 51.0]])


class Keys(InferenceServerClientPlugin):  # type: ignore[misc]  # it has no types
    """A key with every request."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def __call__(self, request: Any) -> None:
        request.headers.update(self.headers)


@pytest.fixture(scope="module")
def triton(guarded_server: tuple[str, dict[str, str]]) -> Iterator[InferenceServerClient]:
    url, headers = guarded_server
    with InferenceServerClient(url.removeprefix("http://")) as client:
        client.register_plugin(Keys(headers))
        yield client


def tensor(name: str, values: np.ndarray, datatype: str, *, binary: bool = True) -> InferInput:
    given = InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def test_health_and_metadata(triton):
    assert triton.is_server_live()
    while not triton.is_server_ready():  # until it is warm
        time.sleep(0.05)
    assert triton.get_server_metadata()["name"] == "densityd"
    assert triton.is_model_ready("people")
    assert triton.is_model_ready("people", "1")
    assert not triton.is_model_ready("people", "2")
    assert not triton.is_model_ready("nobody")
    metadata = triton.get_model_metadata("people")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 3]}]
    assert metadata["outputs"] == [{"name": "log_prob", "datatype": "FP64", "shape": [-1]}]
    sample = triton.get_model_metadata("people:sample", "1")
    assert [given["name"] for given in sample["inputs"]] == ["n", "seed"]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_log_densities(triton, binary_in, binary_out):
    outputs = None
    if binary_out is not None:
        outputs = [InferRequestedOutput("log_prob", binary_data=binary_out)]
    found = triton.infer(
        "people",
        [tensor("rows", ROWS, "FP64", binary=binary_in)],
        outputs=outputs,
        request_id="seven",
    )
    assert found.get_response()["id"] == "seven"
    assert found.get_response()["model_version"] == "1"
    exact = a_flow().log_prob(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(found.as_numpy("log_prob"), exact, rtol=1e-5)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_inverse_has_noise_and_log_determinants(triton, datatype):
    rows = ROWS.astype(np.float32 if datatype == "FP32" else np.float64)
    found = triton.infer("people:inverse", [tensor("rows", rows, datatype)])
    noise, log_det = a_flow().inverse(torch.from_numpy(ROWS))
    np.testing.assert_allclose(found.as_numpy("noise"), noise.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(found.as_numpy("log_det"), log_det.detach().numpy(), rtol=1e-4)


def test_samples_of_a_seed(triton):
    given = [tensor(name, np.array([k], np.int64), "INT64") for name, k in (("n", 5), ("seed", 7))]
    found = triton.infer("people:sample", given, model_version="1")
    rows = found.as_numpy("rows")
    assert rows.shape == (5, 3)
    again = triton.infer("people:1:sample", given)
    np.testing.assert_array_equal(rows, again.as_numpy("rows"))


def test_a_tensor_for_each_column_compressed(triton):
    given = [
        tensor(name, ROWS[:, [place]].astype(np.float32), "FP32")
        for place, name in reversed(list(enumerate(COLUMNS)))
    ]
    for coding in (None, "gzip"):
        found = triton.infer(
            "people",
            given,
            request_compression_algorithm=coding,
            response_compression_algorithm="gzip",
        )
        exact = a_flow().log_prob(torch.from_numpy(ROWS)).detach().numpy()
        np.testing.assert_allclose(found.as_numpy("log_prob"), exact, rtol=1e-4)


def test_a_missing_key_model_or_output_is_an_error_of_the_protocol(triton, guarded_server):
    rows = [tensor("rows", ROWS, "FP64")]
    with (
        InferenceServerClient(guarded_server[0].removeprefix("http://")) as stranger,
        pytest.raises(InferenceServerException, match="API key") as refused,
    ):
        stranger.infer("people", rows)
    assert refused.value.status() == "401"
    with pytest.raises(InferenceServerException, match="No such model") as unknown:
        triton.infer("nobody", rows)
    assert unknown.value.status() == "404"
    with pytest.raises(InferenceServerException, match="no output `noise`; there is `log_prob`"):
        triton.infer("people", rows, outputs=[InferRequestedOutput("noise")])


ROW = ["Good, really", "7.25", "yes", "2024-02-29", "5", "70.1"]
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    registered(*stores(shared_client))
    long = [{**TYPES[0], "levels": [letter * 128 for letter in "🚀🛰🌍"]}, *TYPES[1:]]
    for name, types in (("cars", TYPES), ("long", long)):
        registered_mixed(shared_client, name, types=types)
    registered(*stores(shared_client), name="given", context_columns=("day", "hour"))
    registered(*stores(shared_client), name="wide", columns=[f"c{place}" for place in range(25)])
    return shared_client


def tensor_of(values: Any, datatype: str = "FP64", name: str = "rows", **members: Any) -> Any:
    """A tensor as JSON: of one row, unless its shape is given."""
    shape = [1, len(values)] if name == "rows" else [1]
    return {"name": name, "shape": shape, "datatype": datatype, "data": values, **members}


def infer(client: TestClient, model: str, *inputs: dict[str, Any], **members: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **members})


def sized(size: int) -> Any:
    return {"parameters": {"binary_data_size": size}}


def sent(client: TestClient, model: str, inputs: list[dict[str, Any]], rest: bytes) -> Any:
    """The answer to tensors whose values are behind the JSON."""
    head = json.dumps({"inputs": inputs}).encode()
    headers = {HEADER: str(len(head))}
    return client.post(f"/v2/models/{model}/infer", content=head + rest, headers=headers)


def whole(name: str, number: int) -> Any:
    return tensor_of([number], "INT64", name)


BARE = {"name": "rows", "shape": [1, 3], "datatype": "FP64"}
BINARY = BARE | sized(24)
ROW_OF_2 = {"name": COLUMNS[0], "shape": [2], "datatype": "INT64", "data": [1, 2]}
MANY = {"shape": [83_334], "datatype": "INT64", "data": [1] * 83_334}
GIVEN = {"name": "context", "shape": [1, 2], "datatype": "FP64", "data": [3, 1]}


def rows_tensor(*rows: list[str]) -> dict[str, Any]:
    return {"name": "rows", "shape": [len(rows), 6], "datatype": "BYTES", "data": list(rows)}


def test_rows_of_texts_score_as_in_a_csv_file(client):
    gap = ["", *ROW[1:]]
    lines = "\n".join(",".join(f'"{cell}"' for cell in row) for row in (NAMES, ROW, gap))
    as_csv = client.post(
        "/v1/models/cars/log_prob", content=lines, headers={"Content-Type": "text/csv"}
    )
    answer = infer(client, "cars", rows_tensor(ROW, gap))
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == as_csv.json()["log_prob"]
    whole = answer.request.content  # all of the body may be JSON
    again = client.post(answer.request.url, content=whole, headers={HEADER: str(len(whole))})
    assert again.json() == answer.json()


def test_columns_of_their_own_types_score_alike(client):
    whole = infer(client, "cars", rows_tensor(ROW)).json()["outputs"][0]["data"]
    kinds = {"price": ("FP64", 7.25), "sold": ("BOOL", True), "doors": ("INT64", 5)}
    inputs = []
    for name, cell in zip(NAMES, ROW, strict=True):
        datatype, value = kinds.get(name, ("BYTES", cell))
        inputs.append({"name": name, "shape": [1], "datatype": datatype, "data": [value]})
    answer = infer(client, "cars", *inputs)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == whole
    del inputs[2]["data"]
    answer = sent(client, "cars", [*inputs[:2], inputs[2] | sized(1), *inputs[3:]], b"\1")
    assert answer.json()["outputs"][0]["data"] == whole


def test_numbers_may_be_texts(client):
    numbers = infer(client, "people", tensor_of([171.5, 68.2, 30.0]))
    texts = infer(client, "people", tensor_of(["171.5", "68.2", "30"], "BYTES"))
    assert texts.json() == numbers.json()


def test_outputs_are_those_that_are_wanted(client):
    asked: dict[str, Any] = {"outputs": [{"name": "log_det", "parameters": {"binary_data": True}}]}
    answer = infer(client, "people:inverse", tensor_of([171.5, 68.2, 30.0]), **asked)
    head = json.loads(answer.content[: int(answer.headers[HEADER])])
    assert [output["name"] for output in head["outputs"]] == ["log_det"]
    asked["outputs"][0]["parameters"] = {"binary_data": "no"}
    asked["parameters"] = {"binary_data_output": True}  # of outputs that do not say otherwise
    answer = infer(client, "people:inverse", tensor_of([171.5, 68.2, 30.0]), **asked)
    assert answer.json()["outputs"][0]["data"]
    asked["outputs"][0]["parameters"] = {"binary_data": True}
    refused = infer(
        client,
        "people:inverse",
        BARE | {"shape": [200_000, 3], "data": [1] * 600_000},
        outputs=[*asked["outputs"], {"name": "noise"}],
    )
    assert (refused.status_code, "500000 values in JSON" in refused.text) == (413, True)


def test_samples_of_typed_models_are_texts_that_score(client):
    output = infer(client, "cars:sample", whole("n", 20), whole("seed", 3)).json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [20, 6])
    answer = client.post(
        "/v1/models/cars/sample", json={"n": 20, "seed": 3}, headers={"Accept": "text/csv"}
    )
    texts = np.array(output["data"]).reshape(20, 6)
    assert [row[1] for row in texts] == [
        row[1] for row in list(csv.reader(io.StringIO(answer.text)))[1:]
    ]
    scores = infer(client, "cars", rows_tensor(*texts.tolist())).json()["outputs"][0]["data"]
    assert all(math.isfinite(score) for score in scores)


def test_metadata_of_a_typed_model(client):
    document = client.get("/v2/models/cars").json()
    assert document["inputs"] == [{"name": "rows", "datatype": "BYTES", "shape": [-1, 6]}]
    given = [*TYPES, Column(name="day").to_dict()]
    registered_mixed(client, "told", types=given, context_columns=("day",))
    drawn = client.get("/v2/models/told:sample").json()
    assert drawn["inputs"][2:] == [{"name": "context", "datatype": "BYTES", "shape": [-1, 1]}]
    assert drawn["outputs"] == [{"name": "rows", "datatype": "BYTES", "shape": [-1, 6]}]
    assert document["platform"] == "densityd_mixed"
    assert client.get("/v2/models/cars/ready").json()["ready"] is True
    assert client.get("/v2/health/live").json() == {"live": True}
    database, blobs = stores(client)
    blobs.delete(registered(database, blobs, name="gone").checkpoint_key)
    assert client.get("/v2/models/gone/ready").status_code == 503
    assert document["versions"] == ["1"]


def test_rows_without_a_density_are_null(client):
    answer = infer(
        client, "people", tensor_of([1e300, None, 1.0]), parameters={"timeout": 0}, id=""
    )
    assert answer.json()["id"] == ""
    assert answer.json()["outputs"][0]["data"] == [None]
    assert answer.headers["X-Model"] == "people:1"


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("people", [tensor_of([], shape=[2**53, 2**53])], "may have 4194304 values"),
        ("cars", [tensor_of([], "BYTES", shape=[100_000, 6])], "500000 of them texts"),
        ("people", [tensor_of([], shape=[0, 3])], "no rows"),
        (
            "people",
            [{**ROW_OF_2, "name": name, "shape": [0], "data": []} for name in COLUMNS],
            "no rows",
        ),
        ("people", [tensor_of([1, 2], shape=[1, 3])], "2 values"),
        ("people", [tensor_of([1, 2])], "The rows have 2 values; the model has 3"),
        ("cars", [tensor_of([9, 7.25, 1, 0, 5, 70.1])], "level"),
        ("people", [tensor_of(["1", "2", "3"])], "numbers"),
        ("people", [tensor_of([[1, 2], 3], shape=[1, 3])], "lists"),
        ("people", [tensor_of([10**400, 2, 3])], "number"),
        ("people", [tensor_of([1, 2, 3], "FP65")], "datatype"),
        ("people", [BARE], "neither"),
        ("people", [BINARY], "0 are left"),
        ("people", [BINARY | {"data": [1, 2, 3]}], "both `data` and"),
        ("people", [tensor_of([1, 2, 3], shape=[1, 3]) | {"name": "row"}], "one tensor `rows`"),
        ("people", [tensor_of([1, 2, 3])] * 2, "the same name"),
        ("wide", [tensor_of([1, 2, 3]) | {"name": "row"}], "`c18`, `c19` and 5 more."),
        ("people", [tensor_of([1, 2, 3]) | {"shap": 1}], "did you mean `shape`"),
        ("people", [*map(whole, COLUMNS[1:], (1, 2)), ROW_OF_2], "the shape [2] or [2, 1]"),
        (
            "people",
            [ROW_OF_2, *({**ROW_OF_2, "name": name, "shape": [1, 2]} for name in COLUMNS[1:])],
            "or [2, 1]",
        ),
        ("cars", [tensor_of([1, 2, 3, 4, 5, 6], "BYTES")], "must hold texts"),
        ("cars", [MANY | {"name": name} for name in NAMES], "500000 cells of columns"),
        ("people:sample", [tensor_of([5], name="seed")], "tensors `n`, and"),
        ("people:sample", [tensor_of([5], name="n"), tensor_of([5], name="x")], "`seed` and"),
        (
            "given:sample",
            [tensor_of([5], name="n"), GIVEN | {"shape": [1, 1], "data": [1]}],
            "shape [rows, 2]",
        ),
        ("given:sample", [tensor_of([5], name="n"), GIVEN | {"shape": [2]}], "shape [rows, 2]"),
        ("given:sample", [tensor_of([5], name="n"), GIVEN | {"data": [1, None]}], "finite"),
    ],
)
def test_what_is_wrong_is_told(client, model, given, told):
    answer = infer(client, model, *given)
    assert answer.status_code in (400, 413, 422)
    assert set(answer.json()) == {"error"}
    assert told in answer.json()["error"]


@pytest.mark.parametrize("n", [0, 1.5, math.inf, MAX_VALUES])
def test_more_samples_than_fit_into_memory_are_refused(client, n):
    tensor = {"name": "n", "shape": [1], "datatype": "FP64", **sized(8)}
    answer = sent(client, "people:sample", [tensor], struct.pack("<d", n))
    assert answer.status_code == 422
    assert "tensor `n`" in answer.json()["error"]


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        (tensor_of([True], "BOOL", "n"), b""),
        ({"name": "n", "shape": [1], "datatype": "BOOL", **sized(1)}, b"\1"),
        (tensor_of(["5"], "BYTES", "n"), b""),
        (tensor_of([1, 2], "INT64", "n", shape=[2]), b""),
    ],
)
def test_what_is_no_number_is_no_number_of_samples(client, given, rest):
    answer = sent(client, "people:sample", [given], rest)
    assert (answer.status_code, "one whole number" in answer.json()["error"]) == (422, True)


def test_limits_of_the_service_hold(settings):
    limits = {"max_sample_rows": 3, "max_body_bytes": 200}
    with TestClient(create_app(settings.model_copy(update=limits))) as small:
        registered(*stores(small))
        assert "from 0 to 3" in infer(small, "people:sample", whole("n", 4)).json()["error"]
        assert infer(small, "people:sample", whole("n", 3)).is_success
        assert infer(small, "people", tensor_of([1.0] * 60)).status_code == 413


@pytest.mark.parametrize(
    ("length", "status"),
    [("-1", 400), ("99999", 400), ("9" * 19, 413), ("9" * 20, 400), ("²", 400)],
)
def test_a_wrong_header_length_is_refused(client, length, status):
    answer = client.post(
        "/v2/models/people/infer", content=b"{}", headers=[(HEADER.encode(), length.encode())]
    )
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/models/a/b/c", "/v2/models/nobody/ready"])
def test_every_error_has_the_form_of_the_protocol(client, path):
    answer = client.get(path)
    assert (answer.status_code, set(answer.json())) == (404, {"error"})
    assert client.put("/v2/models/people/infer").json().keys() == {"error"}


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    datatype=st.sampled_from(["BYTES", "FP16", "FP64", "INT8", "BOOL"]),
    size=st.integers(-3, 40),
    body=st.binary(max_size=40),
)
@example(shape=[1], datatype="INT8", size=1, body=b"ab")
def test_no_bytes_do_more_than_be_refused(shape, datatype, size, body):
    tensor = {
        "name": "rows",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    try:
        _, tensors = read_request(head + body, len(head))
    except Problem:
        return
    assert size == len(body)
    assert tensors["rows"].shape == tuple(shape)


@pytest.mark.parametrize(
    ("model", "n", "binary"),
    [
        ("people", 20_000, False),
        ("people", 20_000, True),
        ("cars", 8_000, True),
        ("long", 5_000, False),
    ],
)
def test_few_samples_of_a_seed_begin_many(client, model, n, binary):
    asked = {"parameters": {"binary_data_output": binary}}
    few, many = (
        infer(client, f"{model}:sample", whole("n", count), whole("seed", 3), **asked)
        for count in (9, n)
    )
    rows = [read_rows(answer) for answer in (few, many)]
    unlike = [read_rows(infer(client, f"{model}:sample", whole("n", 9))) for _ in range(2)]
    assert unlike[0] != unlike[1]
    assert [len(found) for found in rows] == [9, n]
    assert rows[1][:9] == rows[0]
    assert (HEADER in many.headers) is binary
    memory = client.app.state.body_memory
    assert memory.held == 0


def read_rows(answer: Any) -> list[Any]:
    """Rows of the only output of a response, in either form."""
    assert answer.status_code == 200, answer.text
    size = int(answer.headers.get(HEADER, len(answer.content)))
    output = json.loads(answer.content[:size])["outputs"][0]
    rest, (count, width) = answer.content[size:], output["shape"]
    if "data" in output:
        values = output["data"]
    elif output["datatype"] == "FP64":
        values = np.frombuffer(rest, np.float64).tolist()
    else:
        values, place = [], 0
        while place < len(rest):
            stop = place + 4 + struct.unpack_from("<I", rest, place)[0]
            values.append(rest[place + 4 : stop].decode())
            place = stop
    return [values[place : place + width] for place in range(0, count * width, width)]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([b"x" * (64 * 1024 + 1)], "a text of more than 65536 bytes"),
        ([b"x"] * 5, "fewer texts"),
        ([b"x"] * 7, "more texts"),
        ([b"\xff"], "no UTF-8"),
        ([b"x"] * 5 + [b"xy"], "cut off"),
    ],
)
def test_texts_that_are_none_of_their_tensor_are_told(client, texts, told):
    body = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    body = body.removesuffix(b"y")
    head = {"name": "rows", "shape": [1, 6], "datatype": "BYTES", **sized(len(body))}
    answer = sent(client, "cars", [head], body)
    assert (answer.status_code, told in answer.json()["error"]) == (422, True)


def test_samples_of_more_text_than_a_response_may_have_are_refused(client):
    refused = infer(client, "long:sample", whole("n", 80_000))
    assert (refused.status_code, "bytes of text" in refused.json()["error"]) == (413, True)
