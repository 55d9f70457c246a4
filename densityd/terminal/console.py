"""A client for commands that turns errors into exit statuses, and printing."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from densityd.client import ApiError, Client, Dataset, UploadOptions
    from densityd.client.records.record import Record

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
_UNAUTHORIZED = 401
_OPTIONS = {
    "dataset_id": "--dataset",
    "model_name": "--model",
    "context_columns": "--context-column",
    "flow": "--flow",
    "flow.family": "--flow",
    "ranges": "--range",
    "optimisation.max_seconds": "--max-seconds",
    "target.potential": "--potential",
    "target.log_density": "--log-density",
    "target.dim": "--dim",
    "target.posterior.kind": "--regression",
    "target.posterior.response": "--response",
    "target.latent.likelihood": "--latent",
    "target.latent.dim": "--dim",
    "target.latent.hidden": "--hidden",
    "target.latent.loadings": "--loadings",
    "target.latent.held_out": "--held-out",
    **{
        f"target.{kind}.{field}": option
        for kind in ("posterior", "latent")
        for field, option in (
            ("dataset_id", "--dataset"),
            ("columns", "--column"),
            ("noise_scale", "--noise-scale"),
        )
    },
}
_FIELD = re.compile(
    rf"`({'|'.join(map(re.escape, _OPTIONS))}"
    r"|(?:flow|discrete|optimisation|preprocessing|split)\.[\w.]+)`"
)
"""Fields of a request for which commands have options; all others of its sections have `--set`."""

_SERVER_ERROR = 500
_LABELS = ("description", "tags")
_UPLOAD_TAG = "densityd/upload"
"""Tag of a dataset that a command uploaded: a hash of the file and of the options of reading it."""
_MOST_NAMES = 20
_ATTEMPTS = 5  # in 2 to 4 seconds: somebody waits at a terminal, perhaps for a wrong address


@contextmanager
def service(url: str | None, *, api_key: str | None = None) -> Iterator["Client"]:
    """Yield a client of the service; an error ends the command with a few lines.

    Args:
        url: URL of the service; None for the one of the environment.
        api_key: API key; None for the one of the environment.

    Raises:
        typer.Exit: The service refused a request or cannot be reached, or a file cannot be used.
    """
    from densityd.client import (  # noqa: PLC0415 - it takes a third of a second
        ApiError,
        Client,
        ClientError,
        FileFormatError,
        Retries,
        RowsWarning,
        Settings,
        TransportError,
    )

    try:
        settings = Settings(url, api_key=api_key, retries=Retries(attempts=_ATTEMPTS))
    except ValueError as error:
        fail(str(error), "Give the URL with --url or DENSITYD_URL.", status=WRONG_USAGE)
    try:
        with warnings.catch_warnings(), Client(settings) as client:
            warnings.simplefilter("always", RowsWarning)
            warnings.showwarning = _note_warning
            yield client
    except ApiError as error:
        fail(*_describe(error, settings.address), status=FAILED)
    except TransportError as error:
        advice = "Start a service with `densityd up`, or give its URL with --url or DENSITYD_URL."
        fail(str(error), advice, status=UNREACHABLE)
    except FileFormatError as error:
        fail(str(error), status=WRONG_USAGE)
    except ClientError as error:
        fail(str(error), status=FAILED)
    except BrokenPipeError:
        raise  # the reader of the output has closed it; click ends quietly
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}", status=FAILED)


def fail(text: str, *more: str, status: int) -> NoReturn:
    """End the command with an error.

    Raises:
        typer.Exit: Always, with the status.
    """
    typer.echo(f"densityd: {make_printable(text)}", err=True)
    for line in more:
        typer.echo(f"  {make_printable(line)}", err=True)
    raise typer.Exit(status)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost; whoever says no, or gives no answer, ends the command.

    Raises:
        typer.Abort: The answer is no.
    """
    if not yes:
        typer.confirm(make_printable(question), abort=True, err=True)


def _note_warning(message: Warning | str, *_: object, **__: object) -> None:
    note(f"warning: {message}")


def note(text: str) -> None:
    """Print a line about the work to standard error, beside the result."""
    typer.echo(make_printable(text), err=True)


def echo_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo_record(record: "Record") -> None:
    """Print a record as JSON."""
    echo_json(record.model_dump(mode="json"))


def echo_records(records: "Iterable[Record]") -> None:
    """Print records as a JSON list."""
    echo_json([record.model_dump(mode="json") for record in records])


def echo_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns; columns of numbers are aligned to the right."""
    cells = [[_format(value) for value in row] for row in rows]
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
    """Print a name and its value on each line; values that are None are left out."""
    shown = [(name, _format(value)) for name, value in facts if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{name:{width}}  {value}")


def upload_table(
    client: "Client",
    file: Path,
    options: "UploadOptions",
    *,
    name: str | None = None,
    key: str | None = None,
) -> "Dataset":
    """Upload a file, and print its size, the types of its columns, and warnings."""
    return tell(client.datasets.upload(file, name=name, idempotency_key=key, **options), "uploaded")


def tell(dataset: "Dataset", what: str = "dataset of") -> "Dataset":
    """Print the size of a dataset, the types of its columns, and warnings, and return it.

    Args:
        dataset: Dataset of the service.
        what: First words of the line with its size.
    """
    what = "uploaded before:" if dataset.replayed else what
    note(f"{what} {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")
    for line in describe_types(dataset):
        note(f"  {line}")
    for warning in dataset.warnings:
        column = "" if warning.column is None else f" ({warning.column})"
        note(f"  warning {warning.code}{column}: {warning.detail}")
    return dataset


def marked(file: Path, options: "UploadOptions") -> "UploadOptions":
    """Return the options of an upload with a tag: a hash of the file and of the options of reading it."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    reading = {name: value for name, value in options.items() if name not in _LABELS}
    request = json.dumps([digest, file.name, reading], sort_keys=True)
    mark = hashlib.sha256(request.encode()).hexdigest()
    return {**options, "tags": {**options.get("tags", {}), _UPLOAD_TAG: mark}}


def upload_once(client: "Client", file: Path, options: "UploadOptions") -> "Dataset":
    """Upload a file as `upload_table`, unless there is a dataset of the same file and options.

    The tag of `marked` finds it, as long as it exists. Labels are no such options.
    """
    from densityd.client import ApiError  # noqa: PLC0415 - it takes a third of a second

    options = marked(file, options)
    mark = options["tags"][_UPLOAD_TAG]
    for found in client.datasets.list(tags={_UPLOAD_TAG: mark}):
        dataset = client.datasets.get(found.id).model_copy(update={"replayed": True})
        return tell(dataset)
    try:
        # Two commands at once give one dataset.
        return upload_table(client, file, options, key=f"upload-{mark}")
    except ApiError as error:
        # It was deleted or tagged otherwise since, or the file was being written.
        if not error.type.endswith("/idempotency-key-reused"):
            raise
        return upload_table(client, file, options)


@contextmanager
def kept_if_accepted(client: "Client", uploaded: "Dataset | None") -> Iterator[None]:
    """Delete a dataset again that was uploaded for a request, if the service refuses the request."""
    from densityd.client import ApiError, ClientError  # noqa: PLC0415 - as above

    try:
        yield
    except ApiError as error:
        if uploaded is not None and not uploaded.replayed and error.status < _SERVER_ERROR:
            with suppress(ClientError):
                client.datasets.delete(uploaded.id)
                note(f"deleted {uploaded.id} again")
        raise


def describe_types(dataset: "Dataset") -> Iterator[str]:
    """Yield a line for each type of column with the names of its columns; ignored ones say why."""
    names: dict[str, list[str]] = {}
    for column in dataset.columns:
        reason = f" ({column.reason})" if column.type == "ignored" and column.reason else ""
        names.setdefault(column.type, []).append(f"{column.name}{reason}")
    for kind, columns in names.items():
        more = len(columns) - _MOST_NAMES
        rest = f" and {more} more" if more > 0 else ""
        yield f"{kind}: {', '.join(columns[:_MOST_NAMES])}{rest}"


def make_printable(text: str) -> str:
    """Return a text without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def _format(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return make_printable(str(value))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True


def in_own_words(text: str) -> str:
    """Return a text of the service with the options of the command line in place of its fields."""
    return _FIELD.sub(lambda found: f"`{_OPTIONS.get(found[1]) or f'--set {found[1]}'}`", text)


def _describe(error: "ApiError", address: str) -> Iterator[str]:
    """Yield the lines of an error, with the page that describes its type."""
    yield in_own_words(error.detail or error.title)
    for wrong in error.errors:
        if f"`{wrong.field}`" in error.detail:
            continue  # it says so by itself
        detail, field = in_own_words(wrong.detail), in_own_words(f"`{wrong.field}`").strip("`")
        if wrong.detail != error.detail:
            yield f"{field}: {detail}" if wrong.field else detail
        elif wrong.field:
            yield f"The option is {field}." if field.startswith("-") else f"The field is {field}."
    yield from error.problem.named
    more = f": {address}{error.type}" if error.type.startswith("/") else ""
    if error.status == _UNAUTHORIZED:
        yield "Set DENSITYD_API_KEY to a key of the service."
    yield f"{error.title} (status {error.status}){more}"
    if error.request_id:
        yield f"The service's log has this request under {error.request_id}."
