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

    def __init__(self, slug: Slug, detail: str) -> None:
        self.slug = slug
        self.detail = detail
        super().__init__(detail)

    def __reduce__(self) -> tuple[object, ...]:
        return _copied, (type(self), vars(self))


def _copied(kind: type[TablesError], fields: dict[str, object]) -> TablesError:
    error = kind.__new__(kind, fields["detail"])
    vars(error).update(fields)
    return error


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
        *,
        column: str | None = None,
        row: int | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(slug, detail)
        self.column = column
        self.row = row
        self.errors = [(name, text) for name, text in errors]

    @property
    def told(self) -> str:
        """Detail for a caller, which says how it counts the row that it names."""
        names_row = self.row is not None and "row" in self.detail.lower()
        return self.detail + COUNTING if names_row else self.detail


class SandboxLimitError(TableError):
    """File whose reading took more time or memory than its process may take."""

    def __init__(self, detail: str) -> None:
        super().__init__("dataset-too-large", detail)


class SandboxCrashError(TableError):
    """File whose reading crashed its process."""

    def __init__(self) -> None:
        super().__init__(
            "dataset-parse",
            "The parser crashed on the file: it is damaged, or takes more memory than is allowed.",
        )


class SandboxKilledError(TablesError):
    """Process that somebody else ended while it read a file; the file is not to blame."""

    def __init__(self) -> None:
        super().__init__(
            "overloaded",
            "The process that read the file was ended from outside, as the system does when its"
            " memory runs out. Send the request again.",
        )


class JsonError(TablesError):
    """Text that is not JSON, or is JSON that no reader accepts."""
