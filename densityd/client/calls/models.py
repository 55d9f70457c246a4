"""The requests about models, their versions and aliases."""

from pathlib import Path
from urllib.parse import quote

from densityd.client.call import (
    LONG_S,
    Answer,
    Call,
    Retry,
    json_body,
    json_of,
    new_key,
    nothing,
)
from densityd.client.options import PictureFormat, PlotKind
from densityd.client.records import Alias, Model, Page, Version, VersionSummary
from densityd.client.wire.files import file_body

PATH = "/v1/models"
_CHECKPOINT = "application/octet-stream"


def page(*, cursor: str | None = None, limit: int | None = None) -> Call[Page[Model]]:
    """A page of models."""
    return Call("GET", PATH, Page[Model].of, params={"cursor": cursor, "limit": limit})


def get(name: str) -> Call[Model]:
    """One model."""
    return Call("GET", _path(name), Model.of)


def version_page(
    name: str, *, cursor: str | None = None, limit: int | None = None
) -> Call[Page[VersionSummary]]:
    """A page of a model's versions."""
    params: dict[str, str | int | None] = {"cursor": cursor, "limit": limit}
    return Call("GET", f"{_path(name)}/versions", Page[VersionSummary].of, params=params)


def version(name: str, number: int) -> Call[Version]:
    """One version."""
    return Call("GET", f"{_path(name)}/versions/{number}", Version.of)


def checkpoint(name: str, number: int) -> Call[None]:
    """The stream of a version's weights."""
    path = f"{_path(name)}/versions/{number}/checkpoint"
    return Call("GET", path, nothing, read_timeout_s=LONG_S)  # its hash is checked first


def plot(name: str, number: int, kind: PlotKind, *, format: PictureFormat) -> Call[bytes]:  # noqa: A002 - the word for it
    """A picture of a version."""
    return Call(
        "GET",
        f"{_path(name)}/versions/{number}/plots/{quote(kind, safe='')}",
        _picture,
        params={"format": format},
        headers={"Accept": "image/svg+xml" if format == "svg" else "image/png"},
        read_timeout_s=LONG_S,  # one is drawn at a time
    )


def upload(name: str, path: Path) -> Call[Version]:
    """Import the file of a model.

    Every try has the same idempotency key, so there is one version however often it is sent.

    Raises:
        OSError: there is no such file.
    """
    body = file_body(path, _CHECKPOINT)
    return Call(
        "POST",
        f"{_path(name)}/versions",
        Version.of,
        body=body,
        headers={"Idempotency-Key": new_key()},
        read_timeout_s=LONG_S,
    )


def alias(name: str, label: str) -> Call[Alias]:
    """Where an alias points."""
    return Call("GET", f"{_path(name)}/aliases/{quote(label, safe='')}", _alias)


def set_alias(name: str, label: str, number: int, *, etag: str | None) -> Call[Alias]:
    """Point an alias at a version.

    Args:
        name: of the model.
        label: of the alias.
        number: of the version.
        etag: do it only if the alias has not moved since; None: whatever it was.
    """
    return Call(
        "PUT",
        f"{_path(name)}/aliases/{quote(label, safe='')}",
        _alias,
        headers={} if etag is None else {"If-Match": etag},
        body=json_body({"version": number}),
        # Its own move would look like somebody else's to the second of two tries.
        retry=Retry.ALWAYS if etag is None else Retry.REFUSED,
    )


def delete_alias(name: str, label: str) -> Call[None]:
    """Delete an alias."""
    path = f"{_path(name)}/aliases/{quote(label, safe='')}"
    return Call("DELETE", path, nothing, retry=Retry.REFUSED)


def _picture(answer: Answer) -> bytes:
    return answer.content


def _alias(answer: Answer) -> Alias:
    return Alias.read({**json_of(answer.content), "etag": answer.headers.get("etag")})


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
