"""``densityd audit``: the audit trail, in its files; the service may run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from densityd.terminal.console import FAILED, WRONG_USAGE, echo_json, fail
from densityd.terminal.options import AsJson
from models_store.settings import first_error

if TYPE_CHECKING:
    from models_store.audit.check import AuditReport

app = typer.Typer(
    short_help="Audit trail: verify the changes that the API made",
    help="The audit trail: a line for each change that the API made, with the hash of the line"
    " before. It is in DENSITYD_AUDIT_DIR, or in the folder audit of DENSITYD_DATA_DIR.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def audit() -> None:
    """Make `verify` a command of its own, although it is the only one."""


@app.command()
def verify(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Folder of the trail.", show_default="the one in the settings"
        ),
    ] = None,
    holds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HASH",
            help="Hash that an earlier verify printed; its line must still be there. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Check the chain of hashes, and print the first line that does not continue it.

    The exit status is 1 if a line was changed, inserted or removed. Lines that are removed from the
    end leave no gap: keep the printed hashes elsewhere, and check them with --holds.

    Examples: densityd audit verify; densityd audit verify /backup/audit;
    densityd audit verify --holds 3f1c9a...; densityd audit verify --json | jq .heads
    """
    from models_store.audit.check import check_trail  # noqa: PLC0415 - only this command needs it

    place = folder or _find_folder()
    try:
        report = check_trail(place, held=frozenset(holds or ()))
    except OSError as error:
        fail(f"{place} cannot be read: {error.strerror or error}.", status=FAILED)
    if as_json:
        echo_json({"whole": report.whole, **asdict(report), "missing": sorted(report.missing)})
    else:
        _echo_report(report, held=bool(holds))
    if not report.whole:
        raise typer.Exit(FAILED)


def _find_folder() -> Path:
    from app.settings import ApiSettings  # noqa: PLC0415 - only this command needs it

    try:
        folder = ApiSettings().audit_folder
    except ValidationError as error:
        fail(first_error(error), status=WRONG_USAGE)
    if folder is None:
        fail("DENSITYD_AUDIT_DIR is -: the audit trail is in the log alone.", status=WRONG_USAGE)
    return folder


def _echo_report(report: "AuditReport", *, held: bool) -> None:
    for sentence in report.broken:
        typer.echo(f"BROKEN: {sentence}.")
    for digest in sorted(report.missing):
        typer.echo(f"BROKEN: no line has the hash {digest}.")
    for sentence in report.notes:
        typer.echo(f"note: {sentence}.")
    if report.unfinished:
        typer.echo(f"note: {report.unfinished} unfinished lines, left by crashes.")
    if not held:
        typer.echo("note: lines removed from the end show only with --holds and an earlier hash.")
    for series, digest in report.heads.items():
        typer.echo(f"series {series} ends with {digest}")
    state = "is whole" if report.whole else "is broken"
    typer.echo(f"The trail {state}: {report.lines} lines in {report.files} files.")
