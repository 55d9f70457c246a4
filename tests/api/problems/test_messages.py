"""Texts of forty wrong requests, as a file that a person has read: `messages.txt`.

Write the file anew with `python -m tests.api.problems.test_messages`, and read it.
"""

import re
from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from tests.api.conftest import CSV, TABLE

GOLDEN = Path(__file__).parent / "messages.txt"
DATASET = "ds_" + "0" * 32
TRAINING = {"model_name": "shuttle", "dataset_id": DATASET}


def training(**change):
    return "POST", "/v1/jobs/training", {**TRAINING, **change}


REQUESTS = [
    training(optimisation={"max_epoch": 3}),
    training(optimisation={"max_epochs": 0}),
    training(optimisation={"max_epochs": "3"}),
    training(optimisation={"max_epochs": 3.5}),
    training(optimisation={"learning_rate": True}),
    training(optimisation={"batch_sise": 3, "patienze": 2}),
    training(optimisation=[]),
    training(optimisation={"optimiser": "lion"}),
    training(optimizer={}),
    training(flow={"family": "maff"}),
    training(flow={}),
    training(flow={"family": "maf", "layrs": 3}),
    training(flow={"family": "maf", "depth": 3}),
    training(flow={"family": "maf", "layers": 0}),
    training(flow={"family": "maf", "hidden": [0]}),
    training(flow={"family": "maf", "hidden": 64}),
    training(split={"train": 2}),
    training(split={"sede": 2}),
    training(columns=[]),
    training(columns="x1"),
    training(model_name="Shuttle 1"),
    training(dataset_id="shuttle"),
    training(preprocessing={"standardize": True}),
    training(optimisation={"schedule": "linear"}),
    training(optimisation={"schedule": {"step": {"epochs": 5}}}),
    training(preprocessing={"dequantise": "no"}),
    ("POST", "/v1/jobs/sweep", {**TRAINING, "ranges": {"layers": {"low": 1, "high": 3}}}),
    (
        "POST",
        "/v1/jobs/sweep",
        {**TRAINING, "flow": {"family": "maf"}, "ranges": {"flow.layrs": {"values": [1, 2]}}},
    ),
    ("GET", "/v1/models?tag=", None),
    ("POST", "/v1/jobs/training", {}),
    ("POST", "/v1/jobs/training", {"model_name": "shuttle"}),
    ("POST", "/v1/jobs/training", []),
    ("POST", "/v1/jobs/training", {"model_name": "a", "dataset_id": DATASET, "flow": "maf"}),
    ("POST", "/v1/jobs/variational", {"model_name": "a", "target": {"potential": "U1", "dim": 2}}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "n": 0}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "m": 3}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "n": 3, "output": "xlsx"}),
    ("POST", "/v1/jobs/scoring", {"model": "shuttle"}),
    ("POST", "/v1/webhooks", {"url": "http://example.org/"}),
    ("POST", "/v1/webhooks", {"url": "https://10.0.0.1/"}),
    ("POST", "/v1/webhooks", {"url": "https://example.org/", "event": []}),
    ("POST", "/v1/keys", {"scopes": "read"}),
    ("POST", "/v1/keys", {"expires_days": -1}),
    ("PATCH", f"/v1/datasets/{DATASET}", {"types": {"a": "text"}}),
    ("PATCH", "/v1/models/shuttle", {"tags": {"a:b": "c"}}),
    ("PUT", "/v1/models/shuttle/aliases/production", {"version": 0}),
    ("GET", "/v1/jobs?state=done", None),
    ("GET", "/v1/jobs?created_at[gte]=yesterday", None),
    ("GET", "/v1/jobs?limit=1000&order=up", None),
    ("GET", "/v1/models?limit=ten", None),
    ("GET", "/v1/models?linit=10", None),
]


def texts(client: TestClient) -> str:
    parts = []
    for method, path, body in REQUESTS:
        answer = client.request(method, path, json=body) if body is not None else client.get(path)
        problem = answer.json()
        lines = [f"{method} {path} {body if body is not None else ''}".rstrip()]
        lines.append(f"  {problem['status']} {problem['title']}: {problem['detail']}")
        for error in problem.get("errors", ()):
            place = error.get("pointer", error.get("parameter"))
            lines.append(f"    {place or '(body)'}: {error['detail']}")
        parts.append("\n".join(lines))
    # New families come now and then.
    return re.sub(r"'gaussian', .*?'(?=[.;])", "all families", "\n\n".join(parts) + "\n")


def test_wrong_requests_are_told_in_one_voice(shared_client):
    told = texts(shared_client)
    assert told == GOLDEN.read_text("utf-8")
    assert "Input should" not in told
    assert "see `errors`; see" not in told


def test_refusals_of_the_store_are_whole_sentences_that_name_their_object(client):
    """Compare the texts of refusals that only a stored table can cause."""
    made = client.post("/v1/datasets", content=TABLE, headers=CSV).json()
    path, tag = f"/v1/datasets/{made['id']}", {"If-Match": '"older"'}
    body = {"model_name": "people", "dataset_id": made["id"]}
    first = made["columns"][0]["name"]

    def train(**change):
        return client.post("/v1/jobs/training", json={**body, **change})

    refusals = {
        f"Column {first!r} is named twice.": train(columns=[first, first]),
        f"Dataset {made['id']} has no column 'depth'.": train(
            columns=["depth"], context_columns=[first]
        ),
        f"Dataset {made['id']} has no column 'HEIGHT' and 1 more; did you mean": train(
            columns=["HEIGHT", "depth"]
        ),
        "The dataset is in another state; the request's condition does not hold.": client.patch(
            path, json={"description": "people"}, headers=tag
        ),
        "No such model: nobody.": client.get("/v1/models/nobody"),
        "The formula cannot be read at character": client.post(
            "/v1/jobs/variational",
            json={"model_name": "ring", "target": {"log_density": "-z1 +", "dim": 1}},
        ),
    }
    for wanted, answer in refusals.items():
        sentence = answer.json()["detail"].split("\n")[0]
        assert sentence.startswith(wanted)
        assert sentence.endswith((".", "?"))


def main() -> None:
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - only this needs it

    from models_store.database.database import migrate  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        settings = ApiSettings(data_dir=Path(folder))
        migrate(settings.resolved_database_url)
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            GOLDEN.write_text(texts(client), "utf-8")


if __name__ == "__main__":
    main()
