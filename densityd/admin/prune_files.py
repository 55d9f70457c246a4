"""``densityd prune-files``: delete what lies in the store and no row needs."""

from typing import TYPE_CHECKING, Annotated

import typer

from densityd.admin.file_texts import format_count, format_file
from densityd.admin.installation import failing, open_installation, read_settings
from densityd.terminal.console import FAILED, echo_json, fail, note
from densityd.terminal.options import AsJson

if TYPE_CHECKING:
    from models_store.files.blobs import FoundFile


def prune_files(
    dry_run: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--dry-run", help="Print what would be deleted; delete nothing.")
    ] = False,
    grace_h: Annotated[
        float, typer.Option(min=0, help="Age in hours from which a file is deleted.")
    ] = 24,
    as_json: AsJson = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Delete files of the store that no row names, and leftovers of crashes, and print them.

    It works on a folder and on a bucket, while the service runs. Files stay behind when a process
    is killed between a file and its row, or when the store is unavailable while something is
    deleted. Nothing is deleted if the database names no file of the store: the store probably
    belongs to another database. After restoring an older database, do not use it before you are sure
    that no newer one will be restored.

    Examples: densityd prune-files --dry-run; densityd prune-files;
    densityd prune-files --grace-h 1 --json
    """
    from models_store.consistency import compare  # noqa: PLC0415 - help is printed without it

    with failing(), open_installation(read_settings()) as (database, blobs):
        compared = compare(database, blobs, deep=False, grace_s=grace_h * 3600)
        staged = blobs.staged_files(older_than_s=grace_h * 3600)
        found = [*compared.orphans, *staged]
        _echo(found, as_json=as_json)
        if dry_run or not found:
            return
        if compared.orphans and compared.checked == len(compared.unusable):
            fail("the database names no file of this store; is it the right one?", status=FAILED)
        for file in compared.orphans:
            blobs.delete(file.key)
        blobs.sweep_staging(older_than_s=grace_h * 3600)
        note(f"deleted {format_count(found)}")


def _echo(found: "list[FoundFile]", *, as_json: bool) -> None:
    if as_json:
        return echo_json([{"key": file.key, "bytes": file.bytes} for file in found])
    for file in found:
        typer.echo(format_file(file))
    return None
