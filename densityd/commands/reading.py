"""How an uploaded file is read: the options of every command that uploads one."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from densityd.client import UploadOptions

Header = Annotated[
    bool,
    typer.Option("--header/--no-header", help="Whether the first line of a CSV names columns."),
]
Delimiter = Annotated[str, typer.Option(help="What separates the values of a CSV.")]
Missing = Annotated[
    Literal["error", "drop"], typer.Option(help="Refuse missing values, or drop their rows.")
]
Constant = Annotated[
    Literal["error", "drop", "keep"], typer.Option(help="What becomes of constant columns.")
]


def upload_options(
    header: bool,  # noqa: FBT001 - as the command line has it
    delimiter: str,
    missing: Literal["error", "drop"],
    constant: Literal["error", "drop", "keep"],
) -> "UploadOptions":
    """The options that are not what the service does anyway."""
    options: UploadOptions = {}
    if not header:
        options["header"] = False
    if delimiter != ",":
        options["delimiter"] = delimiter
    if missing != "error":
        options["missing"] = missing
    if constant != "error":
        options["constant"] = constant
    return options
