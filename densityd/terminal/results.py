"""The output of ``densityd score`` and ``sample``: streamed, or the downloaded file of a job."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import typer

from densityd.terminal.console import note
from densityd.terminal.waiting import wait_for

if TYPE_CHECKING:
    from densityd.client import Client, Job

STANDARD_OUTPUT = Path("-")
JOB_FORMATS = ("csv", "npy", "parquet")


def open_output(output: Path) -> Path | BinaryIO:
    """Return the file to write, or standard output."""
    return sys.stdout.buffer if output == STANDARD_OUTPUT else output


def find_job_format(output: Path) -> Literal["csv", "npy", "parquet"]:
    """Return the format that a job writes for an output.

    Raises:
        typer.BadParameter: Jobs do not write that format.
    """
    kind = "csv" if output == STANDARD_OUTPUT else output.suffix.lower().lstrip(".")
    if kind not in JOB_FORMATS:
        raise typer.BadParameter(f"{output}: a job writes .csv, .npy or .parquet.")
    return cast("Literal['csv', 'npy', 'parquet']", kind)


def download_result(client: "Client", job: "Job", target: Path | BinaryIO) -> None:
    """Wait for a bulk job and download its file."""
    note(f"accepted {job.id}")
    wait_for(client, job.id)
    client.jobs.download(job.id, target)
