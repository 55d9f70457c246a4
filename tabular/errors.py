"""Errors of files of rows, and of texts that should be JSON; each carries the slug of its problem."""

from collections.abc import Sequence

from tabular.slugs import Slug

COUNTING = " Rows are counted from 1, without the header and blank lines."
"""Sentence behind a text that names a row, for a caller."""


class TablesError(Exception):
    """Base of every error of this package.

    Attributes:
        slug: Problem that is reported to a caller.
        detail: Fault and, where it helps, what to do; never a value of the file.
    """

    def __init__(self, slug: Slug, detail: str, *more: object) -> None:
        super().__init__(slug, detail, *more)  # all that a copy in another process is made of
        self.slug = slug
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class TableError(TablesError):
    """File that is not a table which can be stored.

    Attributes:
        column: Name of the first column concerned, or ``column 3`` where the name itself is at
            fault.
        row: First row concerned. Rows of data count from 1; a header or blank line is no row.
        errors: Every column that is at fault with what is wrong in it, where several can be.
    """

    def __init__(
        self,
        slug: Slug,
        detail: str,
        column: str | None = None,
        row: int | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(slug, detail, column, row, errors)
        self.column = column
        self.row = row
        self.errors = list(errors)

    @property
    def told(self) -> str:
        """Detail for a caller, which says how it counts the row that it names."""
        names_row = self.row is not None and "row" in self.detail.lower()
        return self.detail + COUNTING if names_row else self.detail


class SandboxLimitError(TableError):
    """File whose reading took more time or memory than its process may take."""


class SandboxCrashError(TableError):
    """File whose reading crashed its process."""


class SandboxKilledError(TablesError):
    """Process that somebody else ended while it read a file; the file is not to blame."""


class JsonError(TablesError):
    """Text that is not JSON, or is JSON that no reader accepts."""
