"""Problems of JSON documents that do not fit their schema, with the place of each fault."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from app.problems.fields import pointer, shown
from app.problems.problem import FieldError, Problem
from app.problems.wording import alone, fields_at, is_unknown, joined, sentence, worded
from tabular.slugs import Slug

_MOST_ADVISED = 50  # faults for which names like the caller's are looked for


def validation_problem(error: ValidationError, document: object, model: type[BaseModel]) -> Problem:
    """Return the problem that names each place of a document which does not fit its schema.

    Args:
        error: Faults that pydantic found.
        document: Parsed JSON document.
        model: Model of the document.
    """
    found = error.errors(include_url=False, include_input=False)
    found.sort(key=lambda item: not is_unknown(item["type"]))  # they give the problem its type
    slug: Slug = "validation"
    if any(is_unknown(item["type"]) for item in found):
        slug = "unknown-field"
    schema = _schema_of(model) if slug == "unknown-field" else {}
    first = [_fault(dict(item), document, schema) for item in found[:_MOST_ADVISED]]
    rest = [_fault(dict(item), document, None) for item in found[_MOST_ADVISED:]]
    faults = _innermost(first + rest)
    place, text = faults[0]
    more = f" {len(faults) - 1} more: see `errors`." if len(faults) > 1 else ""
    errors = [FieldError(alone(fault), pointer=where.text) for where, fault in faults]
    return Problem(slug, sentence(place.field_name, text) + more, errors=errors)


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _innermost(faults: Sequence[tuple["_Place", str]]) -> list[tuple["_Place", str]]:
    """Return a fault for each place, without those of other schemas that the value might have had."""
    texts: dict[_Place, list[str]] = {}
    for place, text in faults:
        texts.setdefault(place, []).append(text)
    around = {place.steps[:end] for place in texts for end in range(len(place.steps))}
    return [(place, joined(found)) for place, found in texts.items() if place.steps not in around]


def _fault(
    item: dict[str, Any], document: object, schema: Mapping[str, Any] | None
) -> "tuple[_Place, str]":
    """Return the place of a fault, and what is wrong there; without advice if there is no schema."""
    place = _place(item["loc"], document, item["type"])
    if schema is None:
        return place, worded(item, advises=False)
    known = fields_at(schema, place.steps[:-1], document) if is_unknown(item["type"]) else ()
    return place, worded(item, known=known)


class _Place(NamedTuple):
    """Place in a body: the steps to it."""

    steps: tuple[int | str, ...]

    @property
    def text(self) -> str:
        """JSON pointer (RFC 6901)."""
        return pointer(*(str(step)[:64] for step in self.steps))

    @property
    def field_name(self) -> str:
        """Name of the field, such as `optimisation.batch_size`."""
        return ".".join(shown(step)[:64] for step in self.steps)


def _place(location: tuple[int | str, ...], document: object, kind: str) -> _Place:
    """Return the place of a location of pydantic, which names members of unions, too."""
    steps: list[int | str] = []
    here: Any = document
    for index, step in enumerate(location):
        if _has(here, step):
            here = here[step]
        elif not (kind == "missing" and index == len(location) - 1):
            continue
        steps.append(step)
    return _Place(tuple(steps))


def _has(here: object, step: int | str) -> bool:
    if isinstance(here, dict):
        return step in here
    return isinstance(here, list) and isinstance(step, int) and step < len(here)
