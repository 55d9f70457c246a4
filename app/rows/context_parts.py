"""Requests with a context, which is validated some rows at a time."""

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import InitErrorDetails

from app.http.json_body import check_values
from app.problems.problem import FieldError, Problem
from models_store.requests.bulk import ContextCell, ContextRow

PART_VALUES = 4_000
"""Values of a context that are validated at once."""

_MAX_ROW = 10_000  # values of a row of a context; models have far fewer columns
_LEAST_ROWS = 4  # that are validated at once
_MAX_BESIDE = 10_000  # values of a request that are not in its context

_Model = TypeVar("_Model", bound=BaseModel)


class Context(BaseModel):
    """Context as requests have it."""

    context: Annotated[list[ContextRow], Field(fail_fast=True)] | dict[str, ContextCell] | None


def validate_context(
    model: type[_Model], document: dict[str, Any], *, max_rows: int | None = None
) -> _Model:
    """Validate a parsed request, of its context some rows at a time.

    Args:
        model: Model of the request, with the field `context`.
        document: Request, without unknown fields.
        max_rows: Most rows of a context that the model allows; None for any number.

    Raises:
        Problem: A row of the context has more values than any, or the request too many beside it.
        ValidationError: As of the whole.
        orjson.JSONEncodeError: It is nested too deeply.
    """
    context = document.get("context")
    rows = context if isinstance(context, list) else [context]
    longest = max((len(row) for row in rows if isinstance(row, list | dict)), default=0)
    if longest > _MAX_ROW:
        detail = f"A row of `context` has {longest} values; at most {_MAX_ROW} are allowed."
        raise Problem("validation", detail, errors=[FieldError(detail, pointer="/context")])
    fields = {name: value for name, value in document.items() if name != "context"}
    check_values(fields, most=_MAX_BESIDE, beside="context")
    if not isinstance(context, list):
        text = orjson.dumps(fields | {"context": context})
        return model.model_validate_json(text, strict=True)
    whole, found = None, []
    faults: list[InitErrorDetails] = []
    try:
        whole = model.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        faults += fault_details(error, 0)
    most = len(rows) if max_rows is None else min(len(rows), max_rows)
    step = max(PART_VALUES // (longest + 1), _LEAST_ROWS)
    for start in range(0, most, step):
        part = orjson.dumps({"context": rows[start : min(start + step, most)]})
        try:
            found.append(Context.model_validate_json(part, strict=True).context)
        except ValidationError as error:
            faults += fault_details(error, start)
            break
    else:
        if most < len(rows):
            sizes = {"field_type": "List", "max_length": most, "actual_length": len(rows)}
            long = InitErrorDetails(type="too_long", loc=("context",), input=None, ctx=sizes)
            faults.append(long)
    if whole is None or faults:
        raise ValidationError.from_exception_data(model.__name__, faults)
    return whole.model_copy(update={"context": [row for part in found for row in part or ()]})


def fault_details(error: ValidationError, start: int) -> list[InitErrorDetails]:
    """Return the faults of a part of a list, as those of the whole.

    Args:
        error: Faults of the part, whose first number is a place in it.
        start: Entries of the list that come before the part.
    """
    details = []
    for fault in error.errors(include_url=False):
        steps = list(fault["loc"])
        places = [at for at, step in enumerate(steps) if isinstance(step, int)]
        if places:
            steps[places[0]] = start + int(steps[places[0]])
        details.append(
            InitErrorDetails(
                type=fault["type"],
                loc=tuple(steps),
                input=fault["input"],
                ctx=fault.get("ctx", {}),
            )
        )
    return details
