"""Build of the documentation site: ``make docs``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import reference

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


def setup(app: Sphinx) -> None:
    """Write the pages that follow from the code, and point links of pages to pages of the site."""
    reference.write_pages()
    app.connect("source-read", _resolve_links)


def _resolve_links(_: Sphinx, page: str, source: list[str]) -> None:
    folder = "../" * page.count("/") + "reference/"
    source[0] = reference.with_site_links(source[0], folder)
