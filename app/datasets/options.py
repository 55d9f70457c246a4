"""Options of reading an uploaded table, in the query or a form."""

import json
from collections.abc import Callable
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from app.http.examples import EXAMPLE_DESCRIPTION, EXAMPLE_TAGS, MODEL
from app.problems.fields import shown
from app.problems.problem import FieldError, Problem
from app.problems.wording import alone, worded
from app.settings import ApiSettings
from models_store.label_types import MAX_TAGS, Description, TagName, TagValue
from tabular.columns import ColumnType
from tabular.dates import check_format
from tabular.formats import (
    ConstantPolicy,
    DecimalMark,
    Delimiter,
    Encoding,
    MissingPolicy,
    ParseOptions,
    ThousandsMark,
)

MAX_NAMES = 4096
"""The most names or texts in one option."""

_MAX_TEXT = 512
_MAX_ERRORS = 20
_LISTS = {"columns", "drop_rows", "exclude", "merge_levels", "na_values"}
_TYPES = get_args(ColumnType)


def _listed(value: object) -> object:
    """Return the texts of a JSON list in a single value; other values as they are."""
    if isinstance(value, list) and len(value) == 1 and str(value[0]).lstrip().startswith("["):
        try:
            found = json.loads(value[0])
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, list) else value
    return value


Names = Annotated[
    list[Annotated[str, Field(max_length=_MAX_TEXT)]],
    BeforeValidator(_listed),
    Field(max_length=MAX_NAMES),
]
"""Repeated values, or one that is a JSON list."""


_TAGS = TypeAdapter(Annotated[dict[TagName, TagValue], Field(max_length=MAX_TAGS)])


def _tags(text: str) -> dict[str, str]:
    """Return the tags of an option.

    Raises:
        ValueError: It is no JSON object of tags.
    """
    try:
        return _TAGS.validate_json(text)
    except ValidationError as error:
        raise ValueError(
            f"tags are a JSON object of at most {MAX_TAGS} names and texts, such as"
            ' {"team": "space"}'
        ) from error


def _types(text: str) -> dict[str, ColumnType]:
    """Return the types of a JSON object.

    Raises:
        ValueError: It is no object of names and types.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(kind in _TYPES for kind in found.values()):
        raise ValueError(f"types must be a JSON object of names and types: {', '.join(_TYPES)}")
    return found


def _checked_by(read: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        read(text)
        return text

    return AfterValidator(check)


class UploadOptions(BaseModel):
    """Options of reading an uploaded table."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Label of the dataset. Default: the name of the uploaded file, if it has one.",
        examples=[MODEL],
    )
    description: Description | None = Field(
        default=None, description="Description of the dataset.", examples=[EXAMPLE_DESCRIPTION]
    )
    tags: Annotated[str, _checked_by(_tags)] | None = Field(
        default=None,
        max_length=64 << 10,
        description="Tags of the dataset as a JSON object: name to value.",
        examples=[json.dumps(EXAMPLE_TAGS)],
    )
    header: bool | None = Field(
        default=None,
        description="For CSV: true if the first line names the columns, false if it is a row: then, and with the"
        " Content-Type `text/csv; header=absent`, the columns are named `x1` to `xD`. Default: found by the"
        " lines below.",
    )
    delimiter: Delimiter | None = Field(
        default=None,
        description="For CSV: delimiter between values. Default: the one that splits the first rows"
        " into the same number of values.",
    )
    encoding: Encoding | None = Field(
        default=None,
        description="For CSV: encoding of the text. Default: the one that a byte order mark names, else"
        " UTF-8, or else cp1252, with a warning.",
    )
    sheet: str | None = Field(
        default=None,
        max_length=_MAX_TEXT,
        description="For Excel: name of the sheet. Default: the first.",
        examples=["Sheet1"],
    )
    columns: Names | None = Field(
        default=None,
        description="Names of the columns to model, repeated or as a JSON list; the others are kept but"
        " ignored. Default: all.",
        examples=[["height", "weight"]],
    )
    exclude: Names = Field(
        default=[],
        description="Names of columns to ignore, repeated or as a JSON list.",
        examples=[[]],
    )
    types: Annotated[str, _checked_by(_types)] | None = Field(
        default=None,
        max_length=1 << 20,
        description="Types of columns as a JSON object: name to `number`, `integer`, `boolean`,"
        " `category`, `datetime` or `ignored`. Default: the types that the values suggest.",
        examples=['{"height": "number"}'],
    )
    na_values: Names = Field(
        default=[],
        description="Texts that mean a missing value, besides empty ones, NA, null and the like;"
        " repeated or as a JSON list.",
        examples=[["-999"]],
    )
    drop_rows: Names = Field(
        default=[],
        description="Texts of which one as a cell tells that a row is to be left out, such as `Total`;"
        " repeated or as a JSON list. A warning counts the rows.",
        examples=[["Total"]],
    )
    merge_levels: Names = Field(
        default=[],
        description="Names of columns whose texts are one level where they differ in case or blanks alone,"
        " such as `West` and `west`; repeated or as a JSON list.",
        examples=[["region"]],
    )
    decimal: DecimalMark | None = Field(
        default=None,
        description="Character before the decimals of numbers in text. Default: found for each column.",
    )
    thousands: ThousandsMark | None = Field(
        default=None,
        description="Character between groups of three digits of numbers in text. Default: found for"
        " each column.",
    )
    datetime_format: Annotated[str, _checked_by(check_format)] | None = Field(
        default=None,
        max_length=64,
        description="Format of dates in the directives of `strptime`, such as `%d/%m/%Y`. Default: found for"
        " each column.",
        examples=["%d/%m/%Y"],
    )
    max_levels: int = Field(
        default=256,
        ge=1,
        le=4096,
        description="Largest number of levels of a category; rarer ones become the level `*other*`.",
    )
    missing: MissingPolicy = Field(
        default="keep",
        description="`keep` to model missing values as data, `error` to refuse them, `drop` to drop"
        " their rows. Infinite values, and those beyond 1e37, count as missing.",
    )
    constant: ConstantPolicy = Field(
        default="keep",
        description="`keep` to model constant columns as one value, `error` to refuse them, `drop` to"
        " drop them.",
    )

    @field_validator("thousands")
    @classmethod
    def _check_marks(cls, mark: str | None, info: ValidationInfo) -> str | None:
        if mark is not None and mark == info.data.get("decimal"):
            raise ValueError("decimal and thousands must be two characters")
        return mark

    def with_fields(self, fields: list[tuple[str, str]]) -> "UploadOptions":
        """Return these options with others in the place of some, as a form has them.

        Raises:
            Problem: `validation`, or `unknown-parameter`.
        """
        given: dict[str, Any] = {}
        for name, text in fields:
            if name not in UploadOptions.model_fields:
                error = FieldError("There is no such option.", parameter=shown(name))
                known = list(UploadOptions.model_fields)
                raise Problem("unknown-parameter", errors=[error], members={"supported": known})
            given.setdefault(name, []).append(text)
        for name, texts in given.items():
            if name not in _LISTS and len(texts) == 1:
                given[name] = texts[0]
        try:
            return UploadOptions.model_validate(self.model_dump(exclude_unset=True) | given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[:_MAX_ERRORS]
            errors = [
                FieldError(alone(worded(one)), parameter=shown(one["loc"][0])) for one in found
            ]
            raise Problem("validation", errors=errors) from None

    def labels(self) -> dict[str, str]:
        """Return the tags of the dataset."""
        return {} if self.tags is None else _tags(self.tags)

    def kept(self) -> dict[str, Any]:
        """Return the options of reading that are not the default, as a dataset is stored with them."""
        labels = {"name", "description", "tags"}
        kept = self.model_dump(exclude=labels, exclude_defaults=True)
        return kept if self.types is None else kept | {"types": _types(self.types)}

    def parsing(self, settings: ApiSettings, *, room: int) -> ParseOptions:
        """Return the options of the parser.

        Args:
            settings: Settings with the bounds of a table.
            room: Bytes that the project may store beyond what it has.
        """
        return ParseOptions(
            **self.kept(),
            max_rows=settings.max_rows,
            max_columns=settings.max_columns,
            max_bytes=settings.max_table_bytes,
            room=room,
            reserve=settings.store_address.leave_bytes,
        )
