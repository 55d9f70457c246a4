import base64
import hashlib
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tabular.columns import Column
from tests.api.conftest import assert_refused
from tests.api.serving import COLUMNS, registered, stores, uploaded

PRODUCTION = "/v1/models/people/aliases/production"


pytestmark = pytest.mark.usefixtures("two_versions")


def point(client: TestClient, version: Any, **headers: str) -> Any:
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return client.put(PRODUCTION, json={"version": version}, headers=sent)


def served(client: TestClient, ref: str) -> str:
    response = client.post(f"/v1/models/{ref}/sample", json={"n": 1, "seed": 1})
    assert response.status_code == 200, response.text
    return str(response.headers["x-model"])


def test_a_model_shows_its_newest_version_and_its_aliases(client):
    point(client, 1)
    model = client.get("/v1/models/people").json()
    assert model.pop("created_at").endswith("Z")
    latest = model.pop("latest")
    assert (latest["version"], latest["family"], latest["dim"]) == (2, "maf", 3)
    assert model == {
        "name": "people",
        "latest_version": 2,
        "aliases": {"production": 1},
        "description": None,
        "tags": {},
    }


def test_models_are_listed_by_pages(client):
    for name in ("a", "b"):
        registered(*stores(client), name=name)
    first = client.get("/v1/models?limit=2").json()
    second = client.get("/v1/models", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [model["name"] for model in first["items"] + second["items"]] == ["b", "a", "people"]
    assert second["next_cursor"] is None


def test_versions_are_listed_newest_first(client):
    page = client.get("/v1/models/people/versions?limit=1").json()
    assert [version["version"] for version in page["items"]] == [2]
    cursor = page["next_cursor"]
    rest = client.get("/v1/models/people/versions", params={"cursor": cursor}).json()
    assert [version["version"] for version in rest["items"]] == [1]


def test_listed_versions_include_fields_of_the_whole_version(client):
    url = "/v1/models/people/versions"
    names = ["columns", "context_columns", "flow", "preprocessing"]
    plain = client.get(url).json()["items"]
    assert not any(names & one.keys() for one in plain)
    asked = client.get(url, params={"include": names}).json()["items"]
    for short, listed in zip(plain, asked, strict=True):
        whole = client.get(f"{url}/{listed['version']}").json()
        assert listed == {**short, **{name: whole[name] for name in names}}
    some = client.get(url, params={"include": "flow", "limit": 1})
    assert (some.json()["items"][0].keys() & names) == {"flow"}
    assert "include=flow" in some.headers["link"]
    assert_refused(client.get(url, params={"include": "held_out"}), 422, "validation")


def test_what_is_not_there_is_not_found(client):
    missing = ["nobody", "nobody/versions", "nobody/versions/1", "people/versions/3"]
    missing += ["people/aliases/production", "people/versions/9/checkpoint"]
    for path in missing:
        assert_refused(client.get(f"/v1/models/{path}"), 404, "not-found")
    for name in ("people", "nobody"):
        assert_refused(client.delete(f"/v1/models/{name}/aliases/production"), 404, "not-found")


def test_a_moved_alias_is_served_at_once(client):
    for version in (1, 2, 1, 2):
        point(client, version)
        assert served(client, "people") == f"people:{version}"
    client.delete(PRODUCTION)
    assert served(client, "people") == "people:2"


def test_a_stale_etag_changes_nothing(client):
    stale = point(client, 1).headers["etag"]
    fresh = point(client, 2).headers["etag"]
    assert stale != fresh
    assert_refused(point(client, 1, if_match=stale), 412, "precondition")
    refused = client.delete(PRODUCTION, headers={"If-Match": stale})
    assert refused.status_code == 412
    present = client.get(PRODUCTION)
    assert present.json() == {"name": "people", "alias": "production", "version": 2}
    assert present.headers["etag"] == fresh
    assert point(client, 1, if_match=fresh).status_code == 200


def test_a_reason_for_a_move_stays_in_the_history(client):
    path = "/v1/models/people/aliases/reviewed"
    for reason in ("", "x" * 501, "a\0b"):
        assert client.put(path, json={"version": 2, "reason": reason}).status_code == 422
    assert client.put(path, json={"version": 2, "reason": "it was read"}).status_code == 200
    assert client.delete(path).status_code == 204
    answer = client.get("/v1/models/people/history?limit=1")
    assert answer.json()["items"][0] | {"created_at": ""} == {
        "alias": "reviewed",
        "version": None,
        "reason": None,
        "created_at": "",
    }
    older = client.get(answer.links["next"]["url"]).json()["items"][0]
    assert (older["version"], older["reason"]) == (2, "it was read")


def test_conditions_can_ask_for_an_alias_that_is_there_or_is_not(client):
    assert point(client, 1, if_match="*").status_code == 412
    assert point(client, 1, if_none_match="*").status_code == 200
    assert point(client, 2, if_none_match="*").status_code == 412
    assert point(client, 2, if_match="*").status_code == 200
    assert client.get("/v1/models/people").json()["aliases"] == {"production": 2}


def test_if_match_fails_where_there_is_no_alias(client):
    for tag in ('"1"', "*", 'W/"0"', '"0", "1"'):
        assert point(client, 1, if_match=tag).status_code == 412
        assert client.delete(PRODUCTION, headers={"If-Match": tag}).status_code == 412
    assert client.get("/v1/models/people").json()["aliases"] == {}
    tag = point(client, 1).headers["etag"]
    assert client.delete(PRODUCTION).status_code == 204
    point(client, 1)  # another alias of the same name
    assert point(client, 2, if_match=tag).status_code == 412


def moved_under(client: TestClient, name: bytes, lines: list[bytes]) -> int:
    """The status of a move under a condition in some header lines, where "1" is the present tag."""
    tag = point(client, 1).headers["etag"].encode()
    given = ((name, line.replace(b'"1"', tag)) for line in lines)
    headers = [(b"content-type", b"application/json"), *given]
    return client.put(PRODUCTION, content=b'{"version": 2}', headers=headers).status_code


def test_if_match_is_a_list_of_which_one_must_be_the_present_tag(client):
    for lines, status in (
        ([b'"1"'], 200),
        ([b'"999",, , "1" ,'], 200),
        ([b'"999"', b'"1"'], 200),
        ([b"  *  "], 200),
        ([b'"999"'], 412),
        ([b'W/"1"'], 412),
        ([b'"x,1"'], 412),
        ([b'""'], 412),
        ([b'"a,"", "'], 422),
        ([b"1"], 422),
        ([b'"1'], 422),
        ([b'"1" "2"'], 422),
        ([b'"1", *'], 422),
        ([b",,"], 422),
        ([b'"1"'] * 9, 422),
        ([b'"' + b"x" * 1000 + b'"'], 422),
    ):
        assert moved_under(client, b"if-match", lines) == status, lines


def test_if_none_match_is_a_list_of_which_none_may_be_the_present_tag(client):
    for lines, status in (
        ([b'W/"999", "8"'], 200),
        ([b'W/"1"'], 412),
        ([b'"999"', b'"1"'], 412),
        ([b"*"], 412),
        ([b"x"], 422),
    ):
        assert moved_under(client, b"if-none-match", lines) == status, lines


def test_both_conditions_must_hold(client):
    tag = point(client, 1).headers["etag"]
    assert point(client, 2, if_match=tag, if_none_match="*").status_code == 412
    assert point(client, 2, if_match=tag, if_none_match='"9"').status_code == 200


def test_an_alias_that_a_reader_knows_is_not_sent_again(client):
    tag = point(client, 1).headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(PRODUCTION, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert client.get(PRODUCTION, headers={"If-None-Match": '"9"'}).json()["version"] == 1
    assert client.get(PRODUCTION, headers={"If-Match": tag}).status_code == 200
    refused = client.get(PRODUCTION, headers={"If-Match": '"9"', "If-None-Match": tag})
    assert_refused(refused, 412, "precondition")
    assert client.get(f"{PRODUCTION}x", headers={"If-None-Match": "*"}).status_code == 404


def test_a_version_is_better_beyond_two_standard_errors_of_the_difference(client):
    random = np.random.default_rng(0)
    rows = random.normal([170, 70, 40], [10, 12, 15], size=(300, 3)).round(1)
    one, two = (
        client.post(f"/v1/models/people:{number}/log_prob", json={"rows": rows.tolist()}).json()
        for number in (1, 2)
    )
    differences = np.subtract(one["log_prob"], two["log_prob"])

    def errors(of: Any) -> float:
        return float(abs(differences[of].mean()) / differences[of].std(ddof=1) * len(of) ** 0.5)

    chosen = (random.choice(len(rows), 20, replace=False) for _ in range(2000))
    unsure = next(some for some in chosen if 1.2 < errors(some) < 1.8)
    dataset = uploaded(client, rows[unsure], COLUMNS)
    query = {"with": "people:2", "dataset_id": dataset}
    found = client.get("/v1/models/people:1/compare", params=query).json()
    assert found["difference"] == pytest.approx(differences[unsure].mean())
    assert abs(found["difference"]) / found["standard_error"] == pytest.approx(errors(unsure))
    assert (found["sure"], found["better"], found["rows"]) == (False, None, 20)


def test_what_cannot_be_compared_is_told(client):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    lacking = np.where(np.arange(20)[:, None] < 18, rows * [np.nan, 1, 1], rows)
    few, gaps, other = (
        uploaded(client, *table)
        for table in ((rows[:9], COLUMNS), (lacking, COLUMNS), (rows, ["x", *COLUMNS[:2]]))
    )
    discrete = [Column(name=COLUMNS[0], type="category", levels=("a",)).to_dict()]
    known: dict[str, dict[str, Any]] = {
        "fitted": {"target": {"potential": "U1"}},
        "lost": {"dataset_id": "ds_lost"},
        "typed": {"types": discrete + [Column(name=name).to_dict() for name in COLUMNS[1:]]},
    }
    for name, options in known.items():
        registered(*stores(client), name=name, **options)
    for one, two, dataset_id, told in (
        ("fitted", "people", None, "fitted:1 was fitted to a target."),
        ("people", "fitted", None, "fitted:1 was fitted to a target."),
        ("people", "people:1", None, "people:2 has no dataset; name one"),
        ("lost", "people", None, "Dataset ds_lost of lost:1 is deleted; name another"),
        ("typed", "people", few, "Column 'height' has levels or single values"),
        ("people", "people:1", few, f"Too few rows of dataset {few} were held out"),
        ("people", "people:1", gaps, "Too few rows have a density by both"),
        ("people", "people:1", other, f"Dataset {other} does not have the columns of people:2."),
    ):
        query = {"with": two} | ({} if dataset_id is None else {"dataset_id": dataset_id})
        refused = client.get(f"/v1/models/{one}/compare", params=query)
        assert told in assert_refused(refused, 409, "compare-unavailable")["detail"]
    query = {"with": "people:1", "dataset_id": "ds_lost"}
    assert_refused(client.get("/v1/models/people/compare", params=query), 404, "not-found")


def test_an_alias_points_at_versions_that_exist(client):
    for version, status in ((3, 404), (0, 422), ("1", 422), (True, 422), (None, 422)):
        assert point(client, version).status_code == status
    assert client.get("/v1/models/people").json()["aliases"] == {}


def test_a_checkpoint_is_downloaded_as_it_was_stored(client):
    version = client.get("/v1/models/people/versions/1").json()
    response = client.get("/v1/models/people/versions/1/checkpoint")
    digest = hashlib.sha256(response.content)
    assert digest.hexdigest() == version["checkpoint"]["sha256"]
    assert len(response.content) == version["checkpoint"]["bytes"]
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    assert base64.b64encode(digest.digest()).decode() in response.headers["repr-digest"]
    assert "people-1.safetensors" in response.headers["content-disposition"]


def test_a_checkpoint_that_is_damaged_is_not_given_away(client, blobs):
    key = registered(*stores(client), name="hurt").checkpoint_key
    path = blobs.path(key)
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    url = "/v1/models/hurt/versions/1/checkpoint"
    assert_refused(client.get(url), 503, "artifact-corrupt")
    blobs.delete(key)
    assert_refused(client.get(url), 503, "artifact-missing")


def test_a_malformed_range_is_a_problem(client):
    for ranges in ("bytes", "bytes=x-y", "rows=0-1", "bytes=9-2"):
        url = "/v1/models/people/versions/1/checkpoint"
        assert_refused(client.get(url, headers={"Range": ranges}), 400, "bad-request")


def test_a_range_beyond_the_end_is_told_how_long_the_file_is(client):
    path = "/v1/models/people/versions/1/checkpoint"
    whole = client.get(path).content
    for range_ in (f"bytes={len(whole)}-", "bytes=-0"):
        response = client.get(path, headers={"Range": range_})
        assert_refused(response, 416, "range")
        assert response.headers["content-range"] == f"bytes */{len(whole)}"
    last = client.get(path, headers={"Range": "bytes=-9"})
    assert (last.status_code, last.content) == (206, whole[-9:])
    assert client.get(path, headers={"Range": "bytes=0-9"}).status_code == 206


def test_a_version_tells_what_it_is_and_what_it_was_made_from(client):
    version = client.get("/v1/models/people/versions/2").json()
    assert (version["name"], version["version"], version["dim"]) == ("people", 2, 3)
    assert version["columns"] == COLUMNS
    assert version["flow"]["family"] == version["family"] == "maf"
    assert version["preprocessing"] == {"standardise": True}
    assert version["lineage"]["job_id"].startswith("job_")
    assert version["lineage"]["target"] is None
    assert version["checkpoint"].keys() == {"sha256", "bytes"}
    assert version["metrics"] == {"test_log_likelihood": 3.0}
