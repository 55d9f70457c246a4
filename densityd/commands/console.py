"""What all commands share: reaching the service, printing, and telling what went wrong."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from densityd.client import ApiError, Client
    from densityd.client.records import Record

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
_UNAUTHORIZED = 401

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="DENSITYD_URL",
        show_envvar=True,
        show_default="http://127.0.0.1:8000",
        help="Address of the service.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int, typer.Option(min=1, help="Most entries, newest first.")]


@contextmanager
def service(url: str | None) -> Iterator["Client"]:
    """A client of the service; whatever goes wrong ends the command with a few clear lines."""
    from densityd.client import (  # noqa: PLC0415 - it takes a third of a second
        ApiError,
        Client,
        ClientError,
        FileFormatError,
        Settings,
        TransportError,
    )

    try:
        settings = Settings(url)
    except ValueError as error:
        fail(str(error), "Give the address with --url or DENSITYD_URL.", status=WRONG_USAGE)
    try:
        with Client(settings) as client:
            yield client
    except ApiError as error:
        fail(*_lines(error, settings.address), status=FAILED)
    except TransportError as error:
        hint = "Start a service with `densityd up`, or say where it is with --url or DENSITYD_URL."
        fail(str(error), hint, status=UNREACHABLE)
    except FileFormatError as error:
        fail(str(error), status=WRONG_USAGE)
    except ClientError as error:
        fail(str(error), status=FAILED)
    except BrokenPipeError:
        raise  # whoever read the output has enough; click ends quietly
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}", status=FAILED)


def fail(text: str, *more: str, status: int) -> NoReturn:
    """End with an error."""
    typer.echo(f"densityd: {printable(text)}", err=True)
    for line in more:
        typer.echo(f"  {printable(line)}", err=True)
    raise typer.Exit(status)


def note(text: str) -> None:
    """Tell a person at a terminal something that is not the result."""
    if sys.stderr.isatty():
        typer.echo(printable(text), err=True)


def echo_json(value: object) -> None:
    """Print JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo_record(record: "Record") -> None:
    """Print all that the service tells about something, as JSON."""
    echo_json(record.model_dump(mode="json"))


def echo_records(records: "Iterable[Record]") -> None:
    """Print a list of what the service tells, as JSON."""
    echo_json([record.model_dump(mode="json") for record in records])


def echo_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns side by side; numbers stand to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [
        bool(cells) and all(_is_number(row[index]) for row in cells) for index in range(len(header))
    ]
    for row in [list(header), *cells]:
        aligned = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        typer.echo("  ".join(aligned).rstrip())


def echo_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line; what is None is left out."""
    shown = [(name, _cell(value)) for name, value in facts if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{name:{width}}  {value}")


def printable(text: str) -> str:
    """Text of somebody else's as a terminal may have it: without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return printable(str(value))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True


def _lines(error: "ApiError", address: str) -> Iterator[str]:
    """What the service refused, where, and where to read what to do."""
    yield error.detail or error.title
    for wrong in error.errors:
        if wrong.detail != error.detail:
            yield f"{wrong.field}: {wrong.detail}" if wrong.field else wrong.detail
        elif wrong.field:
            yield f"The field is {wrong.field}."
    more = f": {address}{error.type}" if error.type.startswith("/") else ""
    if error.status == _UNAUTHORIZED:
        yield "Set DENSITYD_API_KEY to a key of the service."
    yield f"{error.title} (status {error.status}){more}"
    if error.request_id:
        yield f"The service's log has this request under {error.request_id}."
