"""Errors of this package: what is wrong with a file, or with a text that should be JSON."""

from typing import Literal

TableSlug = Literal[
    "column-name",
    "dataset-constant-column",
    "dataset-dtype",
    "dataset-duplicate-columns",
    "dataset-empty",
    "dataset-encoding",
    "dataset-nonfinite",
    "dataset-parse",
    "dataset-pickle-forbidden",
    "dataset-range",
    "dataset-shape",
    "dataset-too-large",
    "dataset-too-small",
    "dataset-truncated",
    "json-depth",
    "json-duplicate-key",
    "json-encoding",
    "json-nonfinite",
    "json-number",
    "json-syntax",
    "limit-columns",
    "limit-metadata",
    "limit-rows",
    "media-type",
]

JsonSlug = Literal[
    "body-empty",
    "json-depth",
    "json-duplicate-key",
    "json-encoding",
    "json-nonfinite",
    "json-number",
    "json-syntax",
    "validation",
    "value-nonfinite",
]


class TablesError(Exception):
    """Base of every error of this package."""


class TableError(TablesError):
    """A file is not a table that can be stored.

    Attributes:
        slug: the kind of fault.
        detail: what is wrong and, where it helps, what to do; never a value of the file.
        column: the name of the first column concerned, or ``column 3`` where the name itself is
            at fault.
        row: the first row concerned. Rows of data count from 1; a header or blank line is no row.
    """

    def __init__(
        self, slug: TableSlug, detail: str, *, column: str | None = None, row: int | None = None
    ) -> None:
        self.slug = slug
        self.detail = detail
        self.column = column
        self.row = row
        super().__init__(detail)


class SandboxLimitError(TableError):
    """Reading a file took more time or memory than its process may take."""

    def __init__(self, detail: str) -> None:
        super().__init__("dataset-too-large", detail)


class SandboxCrashError(TableError):
    """Reading a file ended its process."""

    def __init__(self) -> None:
        super().__init__(
            "dataset-parse",
            "The parser crashed on the file: it is damaged, or takes more memory than is allowed.",
        )


class JsonError(TablesError):
    """A text is not JSON, or is JSON that nothing here can take.

    Attributes:
        slug: the kind of fault.
        detail: what is wrong, and in which line and column where that is known.
    """

    def __init__(self, slug: JsonSlug, detail: str) -> None:
        self.slug = slug
        self.detail = detail
        super().__init__(detail)
