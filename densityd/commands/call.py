"""``densityd call``: any request of the HTTP API."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.commands.options import Url, split_pair
from densityd.terminal import echo_json, service

if TYPE_CHECKING:
    from densityd.client.call import Body


def call(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="GET, POST, PUT, PATCH or DELETE.")
    ],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path, such as /v1/usage.")],
    body: Annotated[
        str | None,
        typer.Argument(
            metavar="BODY",
            help="Body: JSON, the path of a file, or `-` for JSON on standard input.",
            show_default="none",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="Parameter of the query. Repeatable."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="File to write.", show_default="standard output"),
    ] = None,
    url: Url = None,
) -> None:
    """Send any request of the HTTP API, with the key and the retries of the other commands.

    A response in JSON is printed with indentation, another as it is. Swagger UI, at /docs of the service,
    describes all requests.

    Examples: densityd call GET /v1/usage;
    densityd call POST /v1/datasets claims.csv -o name=claims -o exclude=id;
    densityd call PATCH /v1/datasets/ds_0f3c... '{"types": {"zip": "category"}}';
    densityd call POST /v1/jobs/variational '{"model_name": "ring", "target": {"potential": "U1"}}';
    densityd call POST /v1/webhooks '{"url": "https://example.org/densityd"}';
    densityd call GET /v1/models/claims/versions/2/plots/marginals -o format=svg --output fit.svg
    """
    parameters: dict[str, list[str]] = {}
    for name, value in map(split_pair, options or ()):
        parameters.setdefault(name, []).append(value)
    if not path.startswith("/"):
        raise typer.BadParameter(f"{path}: a path begins with /, such as /v1/usage.")
    content = None if body is None else _body_of(body)
    with service(url) as client:
        response = client.call(method.upper(), path, params=parameters, body=content)
    if output is not None:
        output.write_bytes(response.content)
    elif "json" in response.headers.get("content-type", "") and response.content:
        echo_json(json.loads(response.content))
    else:
        sys.stdout.buffer.write(response.content)


def _body_of(text: str) -> "Body":
    from densityd.client.call import JSON, Body  # noqa: PLC0415 - it takes a third of a second
    from densityd.client.wire.files import MEDIA_TYPES, read_file  # noqa: PLC0415

    file = Path(text)
    if text == "-":
        return Body.of(sys.stdin.buffer.read(), JSON)
    if text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"the body is not JSON: {error}.") from error
        return Body.of(text.encode(), JSON)
    if not file.is_file():
        raise typer.BadParameter(f"{text} is no file, and no JSON object.")
    known = MEDIA_TYPES.get(file.suffix.lower(), "application/octet-stream")
    return read_file(file, known)
