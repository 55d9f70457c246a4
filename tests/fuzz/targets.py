"""What reads bytes of strangers, one check each: our own refusal, or a result that is true.

A check takes any bytes. It raises whatever is neither: that is a bug, of the code or of the check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tables.formats import TableFormat
from tests.fuzz import headers, packed, rows, text
from tests.tables.outcomes import WHOLE


@dataclass(frozen=True)
class Target:
    """A check and where to begin.

    Args:
        check: raises when the outcome for these bytes is not one that is allowed.
        seeds: bytes that reach far into the code.
        words: what its language is made of.
    """

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()


# Parquet is read in a process of its own, in uploads and in bodies, for its library may crash.
_IN_PROCESS = [kind for kind in TableFormat if kind is not TableFormat.PARQUET]

TARGETS = {
    "formula": Target(text.check_formula, text.FORMULAS, text.FORMULA_WORDS),
    "json": Target(text.check_json, text.DOCUMENTS, text.JSON_WORDS),
    "requests": Target(text.check_request, text.REQUESTS, text.JSON_WORDS),
    "headers": Target(headers.check_headers, headers.SEEDS, headers.WORDS),
    "codings": Target(packed.check_coding, packed.PACKED, packed.MAGIC),
    "form": Target(packed.check_form, packed.FORMS, packed.FORM_WORDS),
    **{
        f"rows-{kind}": Target(partial(rows.check_rows, kind), rows.SEEDS[kind], rows.WORDS)
        for kind in _IN_PROCESS
    },
    **{
        f"table-{kind}": Target(partial(rows.check_table, kind), [b"\0" + WHOLE[kind]], rows.WORDS)
        for kind in TableFormat
    },
}
"""Every target by its name."""
