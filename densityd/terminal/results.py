"""The input and output of ``densityd score`` and ``sample``: streamed, or the file of a job."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import typer

from densityd.terminal.console import note
from densityd.terminal.waiting import wait_for

if TYPE_CHECKING:
    from densityd.client import Client, Job

STANDARD_INPUT = STANDARD_OUTPUT = Path("-")
JOB_FORMATS = ("csv", "npy", "parquet")


def open_output(output: Path) -> Path | BinaryIO:
    """Return the file to write, or standard output."""
    return sys.stdout.buffer if output == STANDARD_OUTPUT else output


@contextmanager
def input_file(file: Path) -> Iterator[Path]:
    """Give the file to read, or a copy of standard input, as CSV: a request may be sent again.

    Raises:
        typer.BadParameter: There is no such file.
    """
    if file != STANDARD_INPUT:
        if not file.exists():
            raise typer.BadParameter(f"file {str(file)!r} does not exist.")
        yield file
        return
    with tempfile.NamedTemporaryFile(suffix=".csv") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)


def find_job_format(output: Path) -> Literal["csv", "npy", "parquet"]:
    """Return the format that a job writes for an output.

    Raises:
        typer.BadParameter: Jobs do not write that format.
    """
    kind = "csv" if output == STANDARD_OUTPUT else output.suffix.lower().lstrip(".")
    if kind not in JOB_FORMATS:
        raise typer.BadParameter(f"{output}: a job writes .csv, .npy or .parquet.")
    return cast("Literal['csv', 'npy', 'parquet']", kind)


def download_result(client: "Client", job: "Job", target: Path | BinaryIO) -> "Job":
    """Wait for a bulk job and download its file; return the job as it ended."""
    note(f"accepted {job.id}")
    ended = wait_for(client, job.id)
    client.jobs.download(job.id, target)
    return ended
