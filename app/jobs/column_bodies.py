"""Bodies of jobs that may say something of each column of a table, of which options are validated in parts."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from app.http.json_body import check_values, json_body
from models_store.requests.training import MAX_OPTIONS, ColumnOptions, Preprocessing, Strict

_MAX_VALUES = 100_000
_OF_COLUMNS = frozenset(  # have one for each
    {
        ("columns",),
        ("context_columns",),
        ("preprocessing", "columns"),
        ("target", "posterior", "columns"),
        ("target", "latent", "columns"),
        ("target", "latent", "loadings"),
        ("target", "latent", "offset"),
    }
)
_MAX_BESIDE = 5_000
_PART_COLUMNS = 500  # whose options are validated at once
_MOST_OPTIONS = 8  # of a column that are looked at, more than there are

_Model = TypeVar("_Model", bound=BaseModel)


class _Part(Strict):
    preprocessing: Preprocessing


def columns_body(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Return a dependency that reads a body which may say something of each column of a table.

    Args:
        model: Model of the body.
    """

    def validate(document: dict[str, Any]) -> _Model:
        check_values(document, most=_MAX_BESIDE, beside="columns", without=_OF_COLUMNS)
        preprocessing = document.get("preprocessing")
        given = preprocessing if isinstance(preprocessing, dict) else {}
        options = given.get("columns")
        if not isinstance(options, dict):
            return model.model_validate_json(orjson.dumps(document), strict=True)
        bare = document | {"preprocessing": given | {"columns": {}}}
        request = model.model_validate_json(orjson.dumps(bare), strict=True)
        if len(options) > MAX_OPTIONS:
            raise _too_many(model, len(options))
        columns = {name: one for part in _parts(options) for name, one in part.items()}
        changed = request.preprocessing.model_copy(update={"columns": columns})  # type: ignore[attr-defined]  # it is known
        return request.model_copy(update={"preprocessing": changed})

    return json_body(model, max_values=_MAX_VALUES, by_parts=validate)


def _parts(options: dict[str, Any]) -> Iterator[dict[str, ColumnOptions]]:
    """Yield the options of some columns at a time, until one is wrong.

    Raises:
        ValidationError: As of the whole, for the part that is wrong.
    """
    entries = iter(options.items())
    while part := dict(islice(entries, _PART_COLUMNS)):
        some = {name: _few(fields) for name, fields in part.items()}
        text = orjson.dumps({"preprocessing": {"columns": some}})
        yield _Part.model_validate_json(text, strict=True).preprocessing.columns


def _few(fields: object) -> object:
    """Return the first fields of an object, which has unknown ones among them if it has many."""
    return dict(islice(fields.items(), _MOST_OPTIONS)) if isinstance(fields, dict) else fields


def _too_many(model: type[BaseModel], count: int) -> ValidationError:
    sizes = {"field_type": "Dictionary", "max_length": MAX_OPTIONS, "actual_length": count}
    place = ("preprocessing", "columns")
    fault = InitErrorDetails(type="too_long", loc=place, input=None, ctx=sizes)
    return ValidationError.from_exception_data(model.__name__, [fault])
