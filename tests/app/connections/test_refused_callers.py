"""Callers who send large bodies get the refusal of their key or of their rate, not a broken pipe."""

import urllib.error
import urllib.request

import pytest
import requests

LARGE = b" " * 24_000_000  # more than any buffer of a socket, and than the limit of JSON
JSON = {"Content-Type": "application/json"}
SCORE, JOB = "/v1/models/people/log_prob", "/v1/jobs/training"


@pytest.fixture(scope="module")
def limited(
    guarded_server: tuple[str, dict[str, str]],
) -> tuple[str, dict[str, str], dict[str, str]]:
    """The URL of a server, the headers of a reader, and those of a key that has used up its rate."""
    url, admin = guarded_server

    def key(rate: float | None) -> dict[str, str]:
        wanted = {"scope": "read", "rate": rate}
        made = requests.post(f"{url}/v1/keys", json=wanted, headers=admin, timeout=60)
        return {"Authorization": f"Bearer {made.json()['token']}", **JSON}

    reader, slow = key(None), key(0.001)
    requests.get(f"{url}/v1/me", headers=slow, timeout=60)
    return url, reader, slow


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("case", ["413", "415", "401", "403", "404", "422", "429"])
def test_requests_and_urllib_get_every_refusal(
    limited: tuple[str, dict[str, str], dict[str, str]], case: str, closes: bool
) -> None:
    url, reader, slow = limited
    path, headers, body = {
        "413": (SCORE, reader, LARGE),
        "415": (SCORE, {**reader, "Content-Type": "text/plain"}, LARGE),
        "401": (SCORE, JSON, LARGE),
        "403": (JOB, reader, LARGE),
        "404": ("/v1/models/nobody/log_prob", reader, LARGE),
        "422": (f"{SCORE}?spce=data", reader, LARGE),
        "429": (SCORE, slow, LARGE),
    }[case]
    if closes:
        headers = {**headers, "Connection": "close"}
    answer = requests.post(url + path, data=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["status"]) == (int(case), int(case))
    if closes:  # urllib always says so
        request = urllib.request.Request(url + path, body, headers, method="POST")  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)  # noqa: S310 - the address is our own
        with refused.value as problem:
            assert (problem.status, b'"detail"' in problem.read()) == (int(case), True)
