"""Write the pages of the documentation site that follow from the code: HTTP, command line, `flows`.

`docs/conf.py` calls this at each build. The pages go to `docs/reference`, which is not under version
control, and with them the pages of the repository's root that the others link to.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

import flows
from app.main import create_app
from app.settings import ApiSettings
from densityd.cli import app as command_line

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "docs" / "reference"
_ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
_ROOT_LINK = re.compile(r"\]\((?:\.\./)+(" + "|".join(map(re.escape, _ROOT_PAGES)) + r")")
_FILE_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+examples/[^)]*\)")

Json = dict[str, Any]


def write_pages() -> None:
    """Write all pages to `docs/reference`; a page that is current keeps its time."""
    document = create_app(ApiSettings()).openapi()
    pages = {
        "http.md": "\n\n".join(_http(document)),
        "schemas.md": "\n\n".join(_schemas(document)),
        "command_line.md": "\n\n".join(_commands()),
        "flows.md": _flows(),
        **{page: _root_page(name) for name, page in _ROOT_PAGES.items()},
    }
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text + "\n":
            path.write_text(text + "\n")


def with_site_links(text: str, folder: str) -> str:
    """Return a page whose links to the repository's root lead to pages, and to examples nowhere.

    Args:
        text: Page in Markdown.
        folder: Way from the page's folder to `docs/reference`, such as `reference/`.
    """
    text = _FILE_LINK.sub(r"`\1`", text)
    return _ROOT_LINK.sub(lambda found: f"]({folder}{_ROOT_PAGES[found[1]]}", text)


def _root_page(name: str) -> str:
    text = re.sub(r"\]\(docs/", "](../", (_ROOT / name).read_text())
    text = re.sub(r"\]\(README\.md\)", "](../index.md)", text)
    return re.sub(r"\]\((?=[A-Z]+\.md)", "](../../", text)


# HTTP


def _http(document: Json) -> Iterator[str]:
    yield "# HTTP API"
    yield (
        "Every operation of the OpenAPI document, which a service has at `/openapi.json`. [The API](../api.md)"
        " explains what they share: keys, errors, lists, formats of rows."
    )
    for tag in document["tags"]:
        yield f"## {tag['name'].capitalize()}"
        yield tag["description"]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if operation.get("tags") == [tag["name"]]:
                    yield from _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"### {operation['summary']}"
    yield f"`{method} {path}`"
    yield operation["description"]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", ""))
            for one in parameters
        ]
        yield _table(("parameter", "in", "type", "meaning"), rows)
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body as `{media_type}`: {_type(body.get('schema', {}))}."
    answers = [
        (status, answer["description"], _contents(answer))
        for status, answer in operation["responses"].items()
    ]
    yield _table(("status", "meaning", "content"), answers)


def _contents(answer: Json) -> str:
    contents = answer.get("content", {}).items()
    return ", ".join(f"`{media}` {_type(one.get('schema', {}))}".strip() for media, one in contents)


def _schemas(document: Json) -> Iterator[str]:
    yield "# Bodies of requests and responses"
    yield "The objects that the operations of the [HTTP API](http.md) take and return."
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"({_anchor(name)})=\n## {name}"
        if "description" in schema:
            yield schema["description"]
        required = set(schema.get("required", []))
        fields = [
            (f"`{field}`", _type(one), "yes" if field in required else "", _meaning(one))
            for field, one in schema.get("properties", {}).items()
        ]
        if fields:
            yield _table(("field", "type", "required", "meaning"), fields)
        else:
            yield f"{_type(schema).capitalize()}."


def _anchor(schema: str) -> str:
    return f"schema-{schema.lower()}"


def _meaning(schema: Json) -> str:
    default = schema.get("default")
    meaning = str(schema.get("description", ""))
    return meaning if default is None else f"{meaning} Default: `{json.dumps(default)}`."


def _type(schema: Json) -> str:
    """Return a short text of a schema's type, with links to the schemas that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    for way in ("anyOf", "oneOf", "allOf"):
        if way in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[way]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "")
    if kind == "array":
        return f"array of {_type(schema.get('items', {})) or 'values'}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Command line


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield "What `--help` prints, for every command. [The command line](../client.md#command-line) has examples of all."
    command = typer.main.get_command(command_line)
    context = typer.Context(command, info_name="densityd", **command.context_settings)
    yield from _command(context)


def _command(context: typer.Context) -> Iterator[str]:
    command = context.command
    yield f"## {context.command_path}"
    with context.scope():
        yield f"```text\n{command.get_help(context)}\n```"
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _command(typer.Context(below, info_name=name, parent=context))


# Python


def _flows() -> str:
    """Return the page of the public names of `flows`, whose texts Sphinx takes from the docstrings."""
    classes = [name for name in flows.__all__ if isinstance(getattr(flows, name), type)]
    functions = [name for name in flows.__all__ if name not in classes and _is_function(name)]
    blocks = [
        "# The library `flows`",
        "PyTorch modules with exact densities, without a service. [The flows](../flows.md) has equations and papers.",
        "## Functions",
        *(_rst(f".. autofunction:: flows.{name}") for name in functions),
        "## Classes",
        *(_rst(f".. autoclass:: flows.{name}\n   :members:") for name in classes),
    ]
    return "\n\n".join(blocks)


def _rst(directive: str) -> str:
    return f"```{{eval-rst}}\n{directive}\n```"


def _is_function(name: str) -> bool:
    return callable(getattr(flows, name)) and getattr(flows, name).__class__.__name__ == "function"
