"""What commands print, and how the errors of the service become lines and exit statuses."""

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from densityd.client import ApiError, Client, Dataset, Job

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
_UNAUTHORIZED = 401
_MOST_NAMES = 20
_ATTEMPTS = 5  # in 2 to 4 seconds: somebody waits at a terminal, perhaps for a wrong address


@contextmanager
def service(url: str | None) -> Iterator["Client"]:
    """Yield a client of the service; an error ends the command with a few lines.

    Raises:
        typer.Exit: The service refused a request or cannot be reached, or a file cannot be used.
    """
    # It takes a third of a second.
    from densityd.client import Client, Retries, RowsWarning, Settings  # noqa: PLC0415

    try:
        settings = Settings(url, retries=Retries(attempts=_ATTEMPTS))
    except ValueError as error:
        fail(str(error), "Give the URL with --url or DENSITYD_URL.", status=WRONG_USAGE)
    with _told_errors(settings.address), warnings.catch_warnings(), Client(settings) as client:
        warnings.simplefilter("always", RowsWarning)
        warnings.showwarning = _note_warning
        yield client


@contextmanager
def _told_errors(address: str) -> Iterator[None]:
    from densityd.client import (  # noqa: PLC0415 - as above
        ApiError,
        ClientError,
        FileFormatError,
        TransportError,
        UnreachableError,
    )

    try:
        yield
    except ApiError as error:
        fail(*_describe(error, address), status=FAILED)
    except UnreachableError as error:
        advice = "Start a service with `densityd up`, or give its URL with --url or DENSITYD_URL."
        fail(str(error), advice, status=UNREACHABLE)
    except TransportError as error:
        advice = "It may have carried out the request; `densityd list` shows what there is."
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


def note(text: str) -> None:
    """Print a line about the work to standard error, beside the result."""
    typer.echo(make_printable(text), err=True)


def echo_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns; columns of numbers are aligned to the right."""
    cells = [[format_value(value) for value in row] for row in rows]
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


def echo_facts(facts: Mapping[str, object], *, indent: str = "") -> None:
    """Print a name and its value on each line; values that are None are left out."""
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{indent}{name:{width}}  {format_value(value)}")


def format_value(value: object) -> str:
    """Return a value as a text for people; `-` is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return make_printable(value if isinstance(value, str) else json.dumps(value))


def make_printable(text: str) -> str:
    """Return a text without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def tell_dataset(dataset: "Dataset", what: str) -> None:
    """Print the size of a dataset, the types of its columns and warnings to standard error.

    Args:
        what: First words of the line with its size.
    """
    note(f"{what} {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")
    names: dict[str, list[str]] = {}
    for column in dataset.columns:
        reason = f" ({column.reason})" if column.type == "ignored" and column.reason else ""
        names.setdefault(column.type, []).append(f"{column.name}{reason}")
    for kind, columns in names.items():
        more = len(columns) - _MOST_NAMES
        rest = f" and {more} more" if more > 0 else ""
        note(f"  {kind}: {', '.join(columns[:_MOST_NAMES])}{rest}")
    for warning in dataset.warnings:
        column_name = "" if warning.column is None else f" ({warning.column})"
        note(f"  warning {warning.code}{column_name}: {warning.detail}")


def wait_for(client: "Client", job_id: str, *, timeout_s: float | None = None) -> "Job":
    """Return a job once it has succeeded, with a progress bar until then."""
    from densityd.client.progress import ProgressBar  # noqa: PLC0415 - only a wait needs it

    try:
        with ProgressBar() as bar:
            return client.jobs.wait(job_id, on_progress=bar, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(
            f"{job_id} continues.",
            f"`densityd wait {job_id}` waits again; `densityd cancel {job_id}` stops it.",
            status=INTERRUPTED,
        )


def echo_outcome(job: "Job", *, as_json: bool = False) -> None:
    """Print the outcome of a job: its model or file, or its id while there is none."""
    if as_json:
        echo_json(job.model_dump(mode="json"))
    else:
        typer.echo(format_outcome(job))
    if as_json or not sys.stdout.isatty():
        note(format_outcome(job))
    for text in (job.metrics or {}).get("summary", []):
        note(str(text))


def format_outcome(job: "Job") -> str:
    """Return the model of a job and its quality, or the size of its file."""
    if job.result is not None:
        return f"{job.id}  {job.result.rows} rows, {job.result.bytes} bytes"
    if job.ref is None:
        return job.id
    metrics = job.metrics or {}
    for name, error, label, unit in (
        ("test_log_likelihood", "test_standard_error", "test log-likelihood", "nats per row"),
        ("elbo", "elbo_standard_error", "ELBO", "nats"),
    ):
        if isinstance(value := metrics.get(name), float):
            deviation = metrics.get(error)
            margin = f" +- {2 * deviation:.3f}" if isinstance(deviation, float) else ""
            return make_printable(f"{job.ref}  {label} {value:.3f}{margin} {unit}")
    return make_printable(job.ref)


def _describe(error: "ApiError", address: str) -> Iterator[str]:
    """Yield the lines of an error, with the page that describes its type."""
    yield error.detail or error.title
    for wrong in error.errors:
        if f"`{wrong.field}`" in error.detail:
            continue  # it says so by itself
        if wrong.detail != error.detail:
            yield f"{wrong.field}: {wrong.detail}" if wrong.field else wrong.detail
        elif wrong.field:
            yield f"The field is {wrong.field}."
    yield from error.named
    if error.status == _UNAUTHORIZED:
        yield "Set DENSITYD_API_KEY to a key of the service."
    more = f": {address}{error.type}" if error.type.startswith("/") else ""
    yield f"{error.title} (status {error.status}){more}"
    if error.request_id:
        yield f"The service's log has this request under {error.request_id}."


def _note_warning(message: Warning | str, *_: object, **__: object) -> None:
    note(f"warning: {message}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True
