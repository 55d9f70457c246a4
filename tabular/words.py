"""Words of cells, whatever their table: for a missing value, for true and false, and for nothing."""

import re

_SPACES = (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))
_UNSEEN = (*range(0x200B, 0x2010), *range(0x2028, 0x2030), 0x205F, 0x2060, 0x3000, 0xFEFF)

BLANKS = "".join(map(chr, (*_SPACES, *_UNSEEN)))
"""Characters that show nothing, which may stand around a text."""

# fmt: off
MISSING_SPELLINGS = (
    "", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "Null", "null", "\\N", "None",
    "<null>", "<NULL>", "(null)", "(NULL)", "[null]", "[NULL]",
    "NaN", "nan", "NAN", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)
# fmt: on
"""Texts that mean a missing cell, besides white space alone."""

PLACEHOLDER = re.compile(
    r"[\W_]{1,8}|n\.? ?[adv]\.?|nil|none|unknown|unk|missing|not (available|known|recorded)"
    r"|#[¡¿]?[a-z/0À-ÿ]{1,12}[!?]|#n/?[vd]|err:\d{3}|\.[a-z_]",  # of spreadsheets, SAS and Stata
    re.IGNORECASE,
)
"""Texts that stand for no value among numbers or dates, such as a dash; in other columns they are texts."""

FALSE_TEXTS = ("false", "no", "f", "n", "0", "0.0")
"""Texts of false, in lower case."""

TRUE_TEXTS = ("true", "yes", "t", "y", "1", "1.0")
"""Texts of true, in lower case, in the order of those of false that they go with."""

TRUTHS = [text for pair in zip(FALSE_TEXTS, TRUE_TEXTS, strict=True) for text in pair]
"""Texts of false at even places and of true at odd ones."""
