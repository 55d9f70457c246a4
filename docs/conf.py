"""Build of the guide, which a service shows at /guide: ``make docs``."""

import re
from importlib.metadata import version as installed_version

from pydantic.fields import FieldInfo
from sphinx.application import Sphinx

from app.settings import ApiSettings
from workers.settings import WorkerSettings

project = "densityd"
version = release = installed_version("densityd")
project_copyright = "the densityd authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
default_role = "code"  # docstrings have single backticks
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
html_theme = "furo"
html_title = "densityd"
html_favicon = "../app/site/static/icon.svg"
html_copy_source = False
html_show_sphinx = False

# Pages of the repository's root and examples are no part of the guide.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:examples/[^)]*|[A-Z]+\.md[^)]*)\)")


def setup(app: Sphinx) -> None:
    """Complete the sources of the pages."""
    app.connect("source-read", _complete)


def _complete(_: Sphinx, page: str, source: list[str]) -> None:
    text = _OUTSIDE.sub(r"`\1`", source[0])
    if page == "operations":
        text = text.replace("<!-- settings -->", _settings())
    source[0] = text


def _settings() -> str:
    """Return the table of all settings, with their defaults and meanings."""
    fields = ApiSettings.model_fields | WorkerSettings.model_fields
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [_row(name, field) for name, field in fields.items() if not field.exclude]
    return "\n".join(lines)


def _row(name: str, field: FieldInfo) -> str:
    shown = "unset" if field.default is None else str(field.default)
    if isinstance(field.default, bool):
        shown = shown.lower()
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `DENSITYD_{name.upper()}` | {shown} | {meaning} |"
