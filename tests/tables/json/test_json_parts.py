"""JSON is parsed in parts as it is in one piece."""

import random
from typing import Any

import orjson
import pytest

from tabular.errors import JsonError
from tabular.json.parts import PART_BYTES, load_by_parts
from tabular.json.strict import parse_strict, without_strings

BLANKS = ("", "", "", " ", "\n", "\t ")
STRINGS = ('""', '"a"', '"c,d"', '"[{"', r'"\\"', r'"\""', r'"x\\\","', '"é,ü"', r'"\u00e9"')
OTHERS = ("1", "-2.5e3", "true", "null", "7", "1234567890123456789012", "1e400", "NaN", r'"\ud800"')
ODD_BYTES = b',,,[]{}":\\ 1tn\xc3\xff'


def document(rng: random.Random, depth: int) -> str:
    """Return a document, in which few keys come twice."""
    kind = rng.choice("[{.") if depth else "."
    around = rng.choice(BLANKS), rng.choice(BLANKS)
    if kind == ".":
        value = rng.choice(
            STRINGS if rng.random() < 0.5 else OTHERS[: 6 + 3 * (rng.random() < 0.1)]
        )
        return value.join(around)
    items = [document(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind == "[":
        return f"[{','.join(items)}]".join(around)
    keys = [rng.choice(STRINGS) if rng.random() < 0.3 else f'"k{rng.random()}"' for _ in items]
    pairs = (f"{key}{rng.choice(BLANKS)}:{item}" for key, item in zip(keys, items, strict=True))
    return f"{{{','.join(pairs)}}}".join(around)


def spoilt(rng: random.Random, text: bytes) -> bytes:
    """Return a text with one byte removed, or another one in its place or before it."""
    place = rng.randrange(len(text))
    new = bytes([rng.choice(ODD_BYTES)]) if rng.random() < 0.6 else b""
    return text[:place] + new + text[place + rng.randrange(2) :]


def outcome(text: bytes, size: int | None) -> Any:
    """Return all that a parser says of a text; "twice" where an object names a key twice."""
    objects, colons = text.count(b"{"), without_strings(text).count(b":")
    try:
        value, keys = load_by_parts(text, objects=objects, size=len(text) if size is None else size)
    except orjson.JSONDecodeError as error:
        return error.msg, error.pos, error.lineno, error.colno, error.doc
    return "twice" if keys != colons else repr(value)


@pytest.mark.parametrize("seed", range(40))
def test_parts_of_any_size_give_the_values_and_the_errors_of_the_whole_text(seed):
    rng = random.Random(seed)  # noqa: S311  not for secrets
    for _ in range(100):
        text = document(rng, rng.randrange(1, 6)).encode()
        text = spoilt(rng, text) if rng.random() < 0.5 else text
        size = rng.randrange(12)
        assert outcome(text, size) == outcome(text, None), (text, size)


MEGABYTES = {
    "keys": b'{"rows":1,%b}' % b",".join(b'"%d":1' % key for key in range(100_000)),
    "context": b'{"context":{%b}}' % b",".join(b'"%d":1' % key for key in range(100_000)),
    "rows": b'{"rows":[%b]}' % b",".join([b"[1,2.5,null]"] * 50_000),
    "objects": b"[%b]" % b",".join([b'{"a":1,"b":"x"}'] * 50_000),
    "columns": b'{"a":[%b],"b":[%b]}' % ((b",".join([b"1.5"] * 100_000),) * 2),
    "commas": b'["%b"%b]' % (b"," * 30_000, b',"]"' * 100_000),
}


@pytest.mark.parametrize("form", MEGABYTES)
def test_no_more_than_a_part_is_parsed_at_once(monkeypatch, form):
    text, sizes = MEGABYTES[form], []
    whole = orjson.loads(text)

    def noted(part: bytes) -> Any:
        sizes.append(len(part))
        return parse(part)

    parse = orjson.loads
    monkeypatch.setattr(orjson, "loads", noted)
    assert parse_strict(text) == whole
    assert max(sizes) < PART_BYTES + 200 < len(text)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        (b"[" + b"1," * 100_000 + b"]", "json-syntax"),
        (b"[" + b"1," * 100_000 + b"NaN]", "json-nonfinite"),
        (b"[" + b"1," * 100_000 + b"1e999]", "dataset-nonfinite"),
        (b"[" + b"1," * 100_000 + rb'"\ud800"]', "dataset-encoding"),
        (b"[" + b"1," * 100_000 + b'"\xff"]', "json-encoding"),
        (
            b'{"a":1,%b"a":2}' % b"".join(b'"%d":1,' % key for key in range(30_000)),
            "json-duplicate-key",
        ),
    ],
)
def test_faults_behind_the_first_part_are_told_as_before(text, slug):
    with pytest.raises(JsonError) as caught:
        parse_strict(text)
    assert caught.value.slug == slug


def test_the_place_of_a_fault_is_that_in_the_whole_text():
    text = b'["\xc3\xa9",\n' + b"1,\n" * 50_000 + b"1 1]"
    with pytest.raises(JsonError, match="line 50002, column 3"):
        parse_strict(text)
