"""Words of cells, whatever their table: for a missing value, for true and false, and for nothing."""

_SPACES = (
    *range(9, 14),
    *range(28, 33),
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x202F,
    0x205F,
    0x3000,
)
_UNSEEN = (
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    0x2060,
    0xFEFF,
)  # as marks of the direction of text

# fmt: off
MISSING_SPELLINGS = (
    "", "?", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "Null", "null", "\\N", "None",
    "<null>", "<NULL>", "(null)", "(NULL)", "[null]", "[NULL]",
    "NaN", "nan", "NAN", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)
# fmt: on
"""Texts that mean a missing cell, besides white space alone."""

# fmt: off
_TRUTH_PAIRS = (
    ("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"), ("1", "0"), ("1.0", "0.0"),
    ("ja", "nein"), ("ja", "nej"), ("ja", "nei"), ("ja", "nee"), ("oui", "non"), ("sí", "no"), ("si", "no"),
    ("sì", "no"), ("sim", "não"), ("sim", "nao"), ("tak", "nie"), ("ano", "ne"), ("да", "нет"),
    ("wahr", "falsch"), ("vrai", "faux"), ("vero", "falso"), ("verdadero", "falso"),
    ("verdadeiro", "falso"), ("waar", "onwaar"), ("evet", "hayır"), ("kyllä", "ei"), ("igen", "nem"),  # noqa: RUF001  Turkish
    ("ναι", "όχι"), ("نعم", "لا"), ("हाँ", "नहीं"), ("हां", "नहीं"), ("có", "không"), ("ya", "tidak"), ("так", "ні"),  # noqa: RUF001  as they are
    ("da", "nu"), ("da", "ne"), ("да", "не"), ("כן", "לא"), ("ใช่", "ไม่ใช่"), ("ใช่", "ไม่"), ("tosi", "epätosi"),
    ("sant", "falskt"), ("prawda", "fałsz"), ("doğru", "yanlış"), ("истина", "ложь"),  # noqa: RUF001  as above
    (".t.", ".f."), ("はい", "いいえ"), ("是", "否"), ("예", "아니오"), ("예", "아니요"), ("네", "아니요"),
)
# fmt: on
TRUE_TEXTS = tuple(true for true, _ in _TRUTH_PAIRS)
"""Texts of true, in lower case."""

FALSE_TEXTS = tuple(false for _, false in _TRUTH_PAIRS)
"""Texts of false, in lower case, in the order of those of true that they go with."""

TRUTHS = [text for pair in zip(FALSE_TEXTS, TRUE_TEXTS, strict=True) for text in pair]
"""Texts of false at even places and of true at odd ones."""

BLANKS = "".join(map(chr, (*_SPACES, *_UNSEEN)))
"""Characters that show nothing, which may stand around a text."""
