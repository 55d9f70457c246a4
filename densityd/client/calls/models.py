"""Calls about models, their versions and aliases."""

from pathlib import Path
from urllib.parse import quote

from densityd.client.call import (
    LONG_S,
    Call,
    Response,
    Retry,
    encode_json,
    ignore,
    new_key,
    parse_json,
)
from densityd.client.options import PictureFormat, PlotKind
from densityd.client.records import Alias, Model, Page, Version, VersionSummary
from densityd.client.wire.files import read_file

PATH = "/v1/models"
_CHECKPOINT = "application/octet-stream"


def page(*, cursor: str | None = None, limit: int | None = None) -> Call[Page[Model]]:
    """Return the request for a page of models."""
    return Call("GET", PATH, Page[Model].of, params={"cursor": cursor, "limit": limit})


def get(name: str) -> Call[Model]:
    """Return the request for a model."""
    return Call("GET", _path(name), Model.of)


def version_page(
    name: str, *, cursor: str | None = None, limit: int | None = None
) -> Call[Page[VersionSummary]]:
    """Return the request for a page of a model's versions."""
    params: dict[str, str | int | None] = {"cursor": cursor, "limit": limit}
    return Call("GET", f"{_path(name)}/versions", Page[VersionSummary].of, params=params)


def version(name: str, number: int) -> Call[Version]:
    """Return the request for a version."""
    return Call("GET", f"{_path(name)}/versions/{number}", Version.of)


def checkpoint(name: str, number: int) -> Call[None]:
    """Return the request for a version's weights."""
    path = f"{_path(name)}/versions/{number}/checkpoint"
    return Call("GET", path, ignore, read_timeout_s=LONG_S)  # the service checks the hash first


def plot(name: str, number: int, kind: PlotKind, *, format: PictureFormat) -> Call[bytes]:  # noqa: A002 - the word for it
    """Return the request for a plot of a version."""
    return Call(
        "GET",
        f"{_path(name)}/versions/{number}/plots/{quote(kind, safe='')}",
        _read_image,
        params={"format": format},
        headers={"Accept": "image/svg+xml" if format == "svg" else "image/png"},
        read_timeout_s=LONG_S,  # the service draws one at a time
    )


def upload(name: str, path: Path) -> Call[Version]:
    """Return the import of a model's file.

    Every attempt has the same idempotency key, so that there is one version.

    Raises:
        OSError: There is no such file.
    """
    body = read_file(path, _CHECKPOINT)
    return Call(
        "POST",
        f"{_path(name)}/versions",
        Version.of,
        body=body,
        headers={"Idempotency-Key": new_key()},
        read_timeout_s=LONG_S,
    )


def alias(name: str, label: str) -> Call[Alias]:
    """Return the request for an alias."""
    return Call("GET", f"{_path(name)}/aliases/{quote(label, safe='')}", _read_alias)


def set_alias(name: str, label: str, number: int, *, etag: str | None) -> Call[Alias]:
    """Return the move of an alias to a version.

    Args:
        name: Name of the model.
        label: Label of the alias.
        number: Number of the version.
        etag: Etag that the alias must still have; None to move it in any case.
    """
    return Call(
        "PUT",
        f"{_path(name)}/aliases/{quote(label, safe='')}",
        _read_alias,
        headers={} if etag is None else {"If-Match": etag},
        body=encode_json({"version": number}),
        # To a second attempt the move by the first would look like somebody else's.
        retry=Retry.ALWAYS if etag is None else Retry.REFUSED,
    )


def delete_alias(name: str, label: str) -> Call[None]:
    """Return the deletion of an alias."""
    path = f"{_path(name)}/aliases/{quote(label, safe='')}"
    return Call("DELETE", path, ignore, retry=Retry.REFUSED)


def _read_image(response: Response) -> bytes:
    return response.content


def _read_alias(response: Response) -> Alias:
    return Alias.read({**parse_json(response.content), "etag": response.headers.get("etag")})


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
