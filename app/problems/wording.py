"""Faults that the schema of a request finds, in the service's own words."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from models_store.label_types import NAME_PATTERN

_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_PLAIN = {
    "missing": "is missing",
    "finite_number": "must be finite",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dataclass_type": "must be an object",
    "none_required": "must be null",
    "json_invalid": "is nested more deeply than any value of this route",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "timezone_aware": "must be a time with a time zone, such as 2026-11-24T15:27:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2026-11-24T15:27:00Z",
    "datetime_parsing": "must be a time, such as 2026-11-24T15:27:00Z",
}
_BOUNDED = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    # The library's own text repeats the caller's tag.
    "union_tag_invalid": "must have a {discriminator} among {expected_tags}",
    "union_tag_not_found": "must have a {discriminator}",
}
_SPOKEN = {
    "^[a-z0-9][a-z0-9._-]{0,63}$": "must be a name: at most 64 of the characters a-z, 0-9, `.`, `_`"
    " and `-`, the first a letter or a digit",
    "^ds_[0-9a-f]{32}$": "must be the id of a dataset: `ds_` and 32 hexadecimal digits",
    r"^[^\x00]*$": "must not have the character U+0000",
    r"^[^:\x00]+(:[^\x00]*)?$": "must be the name of a tag, or its name and value as `name:value`",
    r"^(flow|(flow|optimisation)\.[a-z_]{1,64})$": "must be `flow`, or a field such as `flow.layers` or"
    " `optimisation.learning_rate`",
    NAME_PATTERN: "must be the name of a tag: at most 64 letters, digits, `.`, `_`, `/` and `-`, the"
    " first a letter or a digit",
}
_MOST_STEPS = 20
_MOST_KNOWN = 20


def is_unknown(kind: str) -> bool:
    """Return whether a kind of fault is a field that does not exist."""
    return kind in _UNKNOWN


def worded(
    fault: Mapping[str, Any],
    *,
    what: str = "field",
    known: Sequence[str] = (),
    advises: bool = True,
) -> str:
    """Return what a field does wrong, without its name: "must be at least 1".

    Args:
        fault: Error of pydantic.
        what: Word for the field.
        advises: False to name no field or tag like the caller's, which takes up to a millisecond.
    """
    kind = str(fault["type"])
    if is_unknown(kind):
        name = str(fault["loc"][-1])[:64]
        if name in known:
            return f"is no {what} together with the others there"
        like = get_close_matches(name, known, n=1, cutoff=0.55) if known else []
        if like:
            return f"is no {what}; did you mean `{like[0]}`?"
        there = f"; there are {', '.join(known)}" if 0 < len(known) <= _MOST_KNOWN else ""
        return f"is no {what}{there}"
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDED:
        context = fault.get("ctx", {})
        return _bounded(kind, context) + (_meant(kind, context) if advises else "")
    text = str(fault["msg"]).removeprefix("Value error, ")
    return text.replace("Input should be", "must be")


def _meant(kind: str, context: Mapping[str, Any]) -> str:
    """Return a question for the member of a union whose name is like that of the caller."""
    if kind != "union_tag_invalid":
        return ""
    known = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
    like = get_close_matches(str(context["tag"])[:64], known, n=1, cutoff=0.6)
    return f"; did you mean '{like[0]}'?" if like else ""


def _bounded(kind: str, context: Mapping[str, Any]) -> str:
    if kind in ("too_short", "string_too_short") and context["min_length"] == 1:
        return "must not be empty"
    if kind == "string_pattern_mismatch" and context["pattern"] in _SPOKEN:
        return _SPOKEN[context["pattern"]]
    return _BOUNDED[kind].format_map(
        {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in context.items()
        }
    )


def joined(texts: Sequence[str]) -> str:
    """Return what a field does wrong by each of the schemas that it may have, any of which would do."""
    texts = list(dict.fromkeys(texts))
    if len(texts) > 1 and all(text.startswith("must be ") for text in texts):
        return ", or ".join([texts[0], *(text.removeprefix("must be ") for text in texts[1:])])
    return texts[0]


def sentence(name: str, text: str) -> str:
    """Return a sentence about a field."""
    place = f"`{name}`" if name else "The body"
    joint = " " if text.startswith(("must ", "is ")) else ": "
    return _ended(f"{place}{joint}{text}")


def alone(text: str) -> str:
    """Return what a field does wrong as a sentence of its own, beside the field's name."""
    if text.startswith("is no "):
        text = f"There is no such {text.removeprefix('is no ')}"
    if text == _PLAIN["missing"]:
        text = "The field is missing"
    return told(text)


def told(text: str) -> str:
    """Return the message of an error as a sentence; lines below the first are shown as they are."""
    first, newline, shown = text.partition("\n")
    return _ended(first[:1].upper() + first[1:]) + newline + shown


def fields_at(schema: Mapping[str, Any], path: Sequence[int | str], document: object) -> list[str]:
    """Return the names of the fields that a JSON schema has at a place of a document.

    Args:
        schema: JSON schema of the whole body.
        path: Names and indices of the objects around the field.
        document: Body, whose tags choose among the members of unions.
    """
    places, value = [schema], document
    for step in path[:_MOST_STEPS]:
        places = [below for place in places for below in _below(schema, place, step, value)]
        value = _value_at(value, step)
    found = [one for place in places for one in _alternatives(schema, place, value)]
    return sorted({name for place in found for name in place.get("properties", ())})


def _value_at(value: object, step: int | str) -> object:
    try:
        return value[step]  # type: ignore[index]  # what has no such step has no value there
    except (TypeError, KeyError, IndexError):
        return None


def _below(
    schema: Mapping[str, Any], place: Mapping[str, Any], step: int | str, value: object
) -> Iterator[Mapping[str, Any]]:
    for one in _alternatives(schema, place, value):
        if isinstance(step, int) and "items" in one:
            yield one["items"]
        elif step in one.get("properties", {}):
            yield one["properties"][step]


def _alternatives(
    schema: Mapping[str, Any], place: Mapping[str, Any], value: object
) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas of objects that a schema refers to; of a tagged union that of the value's tag."""
    tags = place.get("discriminator", {})
    tag = _value_at(value, tags.get("propertyName", ""))
    if isinstance(tag, str) and tag in tags.get("mapping", {}):
        place = {"$ref": tags["mapping"][tag]}
    if "$ref" in place:
        name = str(place["$ref"]).rpartition("/")[2]
        place = schema.get("$defs", {}).get(name, {})
    yield place
    for key in ("anyOf", "oneOf", "allOf"):
        for other in place.get(key, ()):
            yield from _alternatives(schema, other, value)


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
