"""Requests of one caller, each kept in the history with its times and what was answered."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.chaos.history import Call, History

Said = Callable[[httpx.Response], Mapping[str, Any]]
_TIMEOUT_S = 10


def nothing(_: httpx.Response) -> Mapping[str, Any]:
    """Keep nothing of an answer but its status."""
    return {}


def job_view(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a job that the checks need; a file stands for a version."""
    made = body["result"] and body["result"]["url"]
    if body["kind"] not in ("scoring", "sampling"):
        number = body["model"]["version"]
        made = None if number is None else f"{body['model']['name']}:{number}"
    return {
        "id": body["id"],
        "state": body["state"],
        "attempt": body["attempt"],
        "version": made,
    }


def one_job(response: httpx.Response) -> Mapping[str, Any]:
    """Keep the id and the state of a job."""
    view = job_view(response.json())
    return {"id": view["id"], "jobs": [view]}


class Asking:
    """The service, for one caller; for one thread.

    Args:
        url: Address of the service.
        name: Name of the caller.
        history: Record of all callers.
    """

    def __init__(self, url: str, name: str, history: History) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S)
        self._name = name
        self._history = history

    def ask(
        self,
        what: tuple[str, str],
        request: tuple[str, str],
        *,
        asked: Mapping[str, Any] | None = None,
        said: Said = nothing,
        **arguments: Any,
    ) -> httpx.Response | None:
        """Send a request and return the answer; None if it was lost.

        Args:
            what: Action and target of the call.
            request: Method and path.
            asked: Arguments that the checks need.
            said: Reads the parts of a good answer that the checks need.
            arguments: The rest of the request, for httpx.
        """
        begun = self._history.now()
        try:
            answer = self._http.request(*request, **arguments)
        except httpx.HTTPError:
            answer = None
        self._history.add(
            Call(
                caller=self._name,
                action=what[0],
                target=what[1],
                asked=asked or {},
                begun=begun,
                ended=self._history.now(),
                status=None if answer is None else answer.status_code,
                said={} if answer is None or answer.is_error else said(answer),
            )
        )
        return answer

    def job(self, job_id: str) -> httpx.Response | None:
        """Look at a job."""
        return self.ask(("get_job", job_id), ("GET", f"/v1/jobs/{job_id}"), said=one_job)

    def jobs(self, action: str = "list_jobs", *, state: str | None = None) -> bool:
        """List jobs, page by page, as one call; true if all pages came."""
        begun, views, cursor = self._history.now(), list[dict[str, Any]](), None
        status: int | None = None
        while True:
            query = {"limit": "200", "cursor": cursor, "state": state}
            given = {name: value for name, value in query.items() if value is not None}
            try:
                answer = self._http.get("/v1/jobs", params=given)
            except httpx.HTTPError:
                status = None
                break
            status = answer.status_code
            if answer.is_error:
                break
            page = answer.json()
            views += [job_view(item) for item in page["items"]]
            if (cursor := page["next_cursor"]) is None:
                break
        whole = status == httpx.codes.OK
        self._history.add(
            Call(
                caller=self._name,
                action=action,
                target="",
                begun=begun,
                ended=self._history.now(),
                status=status,
                said={"jobs": views} if whole else {},
            )
        )
        return whole

    def events(self, job_id: str, after: int) -> httpx.Response | None:
        """Read a page of a job's events."""
        return self.ask(
            ("events", job_id),
            ("GET", f"/v1/jobs/{job_id}/events"),
            params={"format": "json", "after": after},
            asked={"after": after},
            said=_events,
        )

    def version(self, version: str) -> httpx.Response | None:
        """Look at a version, NAME:NUMBER."""
        name, _, number = version.partition(":")
        return self.ask(
            ("get_version", version),
            ("GET", f"/v1/models/{name}/versions/{number}"),
            said=one_version,
        )

    def alias(self, name: str, alias: str) -> httpx.Response | None:
        """Look where an alias points."""
        path = f"/v1/models/{name}/aliases/{alias}"
        return self.ask(("get_alias", f"{name}@{alias}"), ("GET", path), said=one_alias)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def one_version(response: httpx.Response) -> Mapping[str, Any]:
    """Keep the name and the hash of a version."""
    body = response.json()
    version = f"{body['name']}:{body['version']}"
    return {"id": version, "sha256": body["checkpoint"]["sha256"]}


def one_alias(response: httpx.Response) -> Mapping[str, Any]:
    """Keep the version and the revision of an alias."""
    return {
        "version": response.json()["version"],
        "revision": int(response.headers["etag"].strip('"')),
    }


def _events(response: httpx.Response) -> Mapping[str, Any]:
    page = response.json()
    items = [
        {
            "id": event["id"],
            "state": event["data"]["state"] if event["event"] == "state" else None,
            "what": f"{event['event']} {event['data']} {event['created_at']}"[:500],
        }
        for event in page["items"]
    ]
    return {"items": items, "ended": page["ended"]}
