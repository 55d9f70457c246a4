"""Progress and results of copies, for people."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from densityd.terminal.console import FAILED, note

if TYPE_CHECKING:
    from models_store.copies.moving import Copied

_EVERY_S = 2.0
_GIB = 2**30


def told() -> Callable[[int, int, int], None]:
    """Return a function that prints the progress of a copy every two seconds."""
    last = time.monotonic()

    def tell(files: int, total: int, size: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            note(f"{files:,} of {total:,} files, {size / _GIB:.2f} GiB")

    return tell


def echo_copied(copied: "Copied", done: str) -> None:
    """Print what was copied, and the files that could not be.

    Raises:
        typer.Exit: Some could not be.
    """
    rows = sum(copied.rows.values())
    typer.echo(f"{done}: {rows:,} rows, {copied.files:,} files, {copied.bytes / _GIB:.2f} GiB.")
    for bad in copied.unusable:
        note(f"not copied: {bad.file.owner}: {bad.error}")
    if copied.unusable:
        note(f"{len(copied.unusable)} files that rows name are missing or damaged in the source.")
        raise typer.Exit(FAILED)
