"""The public clients of the Open Inference Protocol, unchanged, against a server process."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.api.serving import COLUMNS, a_flow

ROWS = np.array([[171.5, 68.2, 30.0], [180.1, 80.9, 51.0]])


@pytest.fixture(scope="module")
def triton(
    guarded_server: tuple[str, dict[str, str]],
) -> Iterator[tuple[InferenceServerClient, dict[str, str]]]:
    url, headers = guarded_server
    with InferenceServerClient(url.removeprefix("http://")) as client:
        yield client, headers


def tensor(name: str, values: np.ndarray, datatype: str, *, binary: bool = True) -> InferInput:
    given = InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def test_health_and_metadata(triton: Any) -> None:
    client, headers = triton
    assert client.is_server_live()
    while not client.is_server_ready():  # until it is warm
        time.sleep(0.05)
    assert client.get_server_metadata(headers={**headers})["name"] == "densityd"
    assert client.is_model_ready("people", headers={**headers})
    assert client.is_model_ready("people", "1", headers={**headers})
    assert not client.is_model_ready("people", "2", headers={**headers})
    assert not client.is_model_ready("nobody", headers={**headers})
    metadata = client.get_model_metadata("people", headers={**headers})
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 3]}]
    assert metadata["outputs"] == [{"name": "log_prob", "datatype": "FP64", "shape": [-1]}]
    sample = client.get_model_metadata("people:sample", "1", headers={**headers})
    assert [given["name"] for given in sample["inputs"]] == ["n", "seed"]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_log_densities(triton: Any, binary_in: bool, binary_out: bool | None) -> None:
    client, headers = triton
    outputs = None
    if binary_out is not None:
        outputs = [InferRequestedOutput("log_prob", binary_data=binary_out)]
    found = client.infer(
        "people",
        [tensor("rows", ROWS, "FP64", binary=binary_in)],
        outputs=outputs,
        request_id="seven",
        headers={**headers},
    )
    assert found.get_response()["id"] == "seven"
    assert found.get_response()["model_version"] == "1"
    exact = a_flow().log_prob(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(found.as_numpy("log_prob"), exact, rtol=1e-5)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_inverse_has_noise_and_log_determinants(triton: Any, datatype: str) -> None:
    client, headers = triton
    rows = ROWS.astype(np.float32 if datatype == "FP32" else np.float64)
    found = client.infer("people:inverse", [tensor("rows", rows, datatype)], headers={**headers})
    noise, log_det = a_flow().inverse(torch.from_numpy(ROWS))
    np.testing.assert_allclose(found.as_numpy("noise"), noise.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(found.as_numpy("log_det"), log_det.detach().numpy(), rtol=1e-4)


def test_samples_of_a_seed(triton: Any) -> None:
    client, headers = triton
    given = [
        tensor("n", np.array([5], np.int64), "INT64"),
        tensor("seed", np.array([7], np.int64), "INT64"),
    ]

    found = client.infer("people:sample", given, model_version="1", headers={**headers})
    rows = found.as_numpy("rows")
    assert rows.shape == (5, 3)
    again = client.infer("people:sample", given, headers={**headers})
    np.testing.assert_array_equal(rows, again.as_numpy("rows"))


def test_a_tensor_for_each_column_compressed(triton: Any) -> None:
    client, headers = triton
    given = [
        tensor(name, ROWS[:, [place]].astype(np.float32), "FP32")
        for place, name in reversed(list(enumerate(COLUMNS)))
    ]
    for coding in (None, "gzip"):
        found = client.infer(
            "people",
            given,
            headers={**headers},
            request_compression_algorithm=coding,
            response_compression_algorithm="gzip",
        )
        exact = a_flow().log_prob(torch.from_numpy(ROWS)).detach().numpy()
        np.testing.assert_allclose(found.as_numpy("log_prob"), exact, rtol=1e-4)


def test_many_requests_at_once(triton: Any) -> None:
    client, headers = triton
    waiting = [
        client.async_infer("people", [tensor("rows", ROWS, "FP64")], headers={**headers})
        for _ in range(20)
    ]
    assert {found.get_result().as_numpy("log_prob").shape for found in waiting} == {(2,)}


def test_errors_have_the_form_of_the_protocol(triton: Any) -> None:
    client, headers = triton
    with pytest.raises(InferenceServerException, match="API key") as refused:
        client.infer("people", [tensor("rows", ROWS, "FP64")])
    assert refused.value.status() == "401"
    with pytest.raises(InferenceServerException, match="No such model") as unknown:
        client.infer("nobody", [tensor("rows", ROWS, "FP64")], headers={**headers})
    assert unknown.value.status() == "404"
    with pytest.raises(InferenceServerException, match="2 values; the model has 3 columns"):
        client.infer("people", [tensor("rows", ROWS[:, :2], "FP64")], headers={**headers})
    with pytest.raises(InferenceServerException, match=r"one tensor `rows` of shape \[rows, 3\]"):
        client.infer("people", [tensor("row", ROWS, "FP64")], headers={**headers})
    with pytest.raises(InferenceServerException, match="no output `noise`; there is `log_prob`"):
        client.infer(
            "people",
            [tensor("rows", ROWS, "FP64")],
            outputs=[InferRequestedOutput("noise")],
            headers={**headers},
        )


def test_a_kserve_request(guarded_server: tuple[str, dict[str, str]]) -> None:
    """As `kserve.InferenceRESTClient` sends it, whose package would bring a web framework along."""
    url, headers = guarded_server

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            assert (await client.get("/v2/health/live")).json() == {"live": True}
            assert (await client.get("/v2/models/people/ready")).json()["ready"] is True
            return await client.post(
                "/v2/models/people/infer",
                json={
                    "id": "4be4e82f-5500-420a-a5c5-ac86841e271b",
                    "inputs": [
                        {
                            "name": "rows",
                            "shape": [2, 3],
                            "datatype": "FP64",
                            "data": ROWS.reshape(-1).tolist(),
                        }
                    ],
                },
            )

    document = asyncio.run(ask()).json()
    assert document["outputs"][0]["shape"] == [2]
