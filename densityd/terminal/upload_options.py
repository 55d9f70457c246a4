"""Options of an upload, which several commands take."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from densityd.terminal.options import parse_new_tags

if TYPE_CHECKING:
    from densityd.client import UploadOptions

Header = Annotated[
    bool,
    typer.Option("--header/--no-header", help="First line of a CSV file has the column names."),
]
Delimiter = Annotated[
    str | None, typer.Option(help="Delimiter of a CSV file.", show_default="found in the file")
]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of a CSV file.", show_default="found in the file")
]
Decimal = Annotated[
    str | None, typer.Option(help="Decimal mark of numbers.", show_default="found in the file")
]
Thousands = Annotated[
    str | None,
    typer.Option(help="Mark between groups of three digits.", show_default="found in the file"),
]
DatetimeFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="Format of dates, such as %d.%m.%Y.",
        show_default="found in the file",
    ),
]
NaValues = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Text that stands for a missing value. Repeatable."),
]
OnlyColumns = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column to keep. Repeatable.", show_default="all"),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Column to ignore. Repeatable.")
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=TYPE",
        help="Type of a column: number, integer, boolean, category, datetime or ignored."
        " Repeatable.",
    ),
]
MaxLevels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum number of levels of a category; rarer ones become the level other.",
        show_default="256",
    ),
]
Missing = Annotated[
    Literal["keep", "error", "drop"] | None,
    typer.Option(
        help="Keep gaps as data, refuse a table with gaps, or drop the rows that have some.",
        show_default="keep",
    ),
]
Constant = Annotated[
    Literal["keep", "error", "drop"] | None,
    typer.Option(
        help="Keep constant columns, refuse a table with some, or drop the columns.",
        show_default="keep",
    ),
]
Description = Annotated[
    str | None, typer.Option(help="Description of the dataset, and of what is trained on it.")
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="NAME=VALUE",
        help="Tag of the dataset, and of what is trained on it. Repeatable.",
    ),
]
TypeName = Literal["number", "integer", "boolean", "category", "datetime", "ignored"]

_TYPE_NAMES = ", ".join(get_args(TypeName))


def takes_upload_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of an upload, in the place of its parameter `options`.

    Args:
        command: Command whose parameter `options` gets those that are given.
    """
    shared = inspect.signature(_options).parameters.values()
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += shared if parameter.name == "options" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401  the options of any command
        options = _options(**{each.name: given.pop(each.name) for each in shared})
        command(**given, options=options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    vars(run)["__signature__"] = inspect.Signature(
        [each.replace(kind=keyword) for each in parameters]
    )
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _options(
    *,
    types: Types = None,
    exclude: Exclude = None,
    na_values: NaValues = None,
    header: Header = True,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    datetime_format: DatetimeFormat = None,
    max_levels: MaxLevels = None,
    missing: Missing = None,
    constant: Constant = None,
    description: Description = None,
    tag: Tags = None,
) -> "UploadOptions":
    """Return the options that are given, and leave out what the service chooses."""
    given = {
        "types": parse_types(types),
        "exclude": exclude,
        "na_values": na_values,
        "header": None if header else False,
        "delimiter": delimiter,
        "encoding": encoding,
        "decimal": decimal,
        "thousands": thousands,
        "datetime_format": datetime_format,
        "max_levels": max_levels,
        "missing": missing,
        "constant": constant,
        "description": description,
        "tags": parse_new_tags(tag) or None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return cast("UploadOptions", options)


def parse_types(texts: Iterable[str] | None) -> dict[str, TypeName] | None:
    """Return the types of columns by name; None if there are none.

    Raises:
        typer.BadParameter: A text is not `name=type`.
    """
    types: dict[str, TypeName] = {}
    for text in texts or ():
        name, sign, value = text.rpartition("=")  # a name may have an equals sign
        if not sign or value not in get_args(TypeName):
            raise typer.BadParameter(f"{text}: write NAME=TYPE, TYPE one of {_TYPE_NAMES}.")
        types[name] = cast("TypeName", value)
    return types or None
