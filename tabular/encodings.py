"""Encoding of text that is not Unicode, detected from the alphabets of languages.

A text is read in each encoding that fits it. What counts is which share of its characters beyond ASCII are
letters of one language, in places where that language has letters: in an encoding that is wrong, words
have signs in them, capitals inside, or letters that no language has together. Chinese, Japanese and Korean
are told by their frequent characters.

The cells of a table are too few and too short for charset-normalizer: of 60 tables of 2 to 8 words in each
of 20 pairs of an encoding and a language, it read none in Hebrew, Arabic and Russian as they were, and 9 to
57 in German, French, Turkish, Polish, Greek, Japanese, Korean and Chinese, where this reads 50 to 60.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from math import inf

CODECS = {"shift_jis": "cp932", "gbk": "gb18030", "euc_kr": "cp949"}
"""Codecs that hold more characters than the encoding of this name, and all of its."""

_MOST_WORDS = 400
# Of a long word its start; signs below are no second bytes of a character.
_WORD = re.compile(rb"([\x40-\xff]{1,64})[\x40-\xff]*")
_LONGEST_WORD = 64
_LONGEST_LINE = 1 << 20
_LEAST_SCORE = 0.5
_SIGN, _RARE, _LONE, _SOME = 0.9, 0.8, 0.5, 0.5

# Letters of languages beyond ASCII; of alphabets other than the Latin one, the frequent ones first.
_WESTERN = {
    "German": "äöüß",
    "French": "àâæçèéêëîïôœùûüÿ",
    "Spanish": "áéíóúüñ",
    "Portuguese": "áâãàçéêíóôõúü",
    "Italian": "àèéìòóù",
    "Dutch": "éèëïóöü",
    "Nordic": "åäöæøé",
}
_CENTRAL = {
    "Polish": "ąćęłńóśźż",
    "Czech": "áčďéěíňóřšťúůýž",
    "Slovak": "áäčďéíĺľňóôŕšťúýž",
    "Hungarian": "áéíóöőúüű",
    "Croatian": "čćđšž",
    "Romanian": "ăâîşţ",
}
_CYRILLIC = {
    "Russian": "оеаинтсрвлкмдпубгжзйфхцчшщъыьэюяё",
    "Ukrainian": "оеаинтсрвлкмдпубгжзйфхцчшщьюяіїєґ",
    "Serbian": "оеаинтсрвлкмдпубгђжзјљњћфхцчџш",
}
_KATAKANA = "ﾝｲｽｶｼｳﾞﾄｱｰｸﾙﾘﾗﾀｵｷｺﾃﾅﾆﾏﾐﾊﾛｹｻﾂﾌﾋﾚﾉﾎﾒﾜﾓﾑｴｿﾁﾍﾈﾇﾔﾕﾖｾﾟｯｬｭｮｧｨｩｪｫｦ"
_FINAL = frozenset("ךםןףץ")
_FREQUENT = 15
_ENDINGS = 1.1  # of an alphabet with letters that only end words, which no other text keeps to
_FEWEST_CHARACTERS = 4
_MIXED = {"languages of Western Europe": "".join(_WESTERN.values())}
_ALPHABETS: tuple[tuple[str, dict[str, str], float], ...] = (
    ("cp1252", _WESTERN, 1.0),
    ("mac_roman", _WESTERN, 1.0),
    ("cp1251", _CYRILLIC, 1.0),
    ("koi8_r", _CYRILLIC, 1.0),
    ("cp866", _CYRILLIC, 1.0),
    ("mac_cyrillic", _CYRILLIC, 1.0),
    ("cp1250", _CENTRAL, 1.0),
    ("iso8859_2", _CENTRAL, 1.0),
    ("cp1253", {"Greek": "αοιετσνηυρπκμλςγδβζθξφχψωάέήίόύώϊϋΐΰ"}, 1.0),
    ("cp1254", {"Turkish": "çğıİöşüâî"}, 1.0),
    ("cp1255", {"Hebrew": "יוהלאתרבמשנםדקחפעטכסגצזךןףץ"}, _ENDINGS),
    (
        "cp1256",
        {
            "Arabic": "اليمونرتبةعدسفهكقحجأشطصخإذزثءىضغئآظؤ",
            "Persian": "ایرندهمتبوسلشکزفگعخقپجحآصطچضژثغظذئ",
        },
        1.0,
    ),
    ("shift_jis", {"Japanese": _KATAKANA}, 1.0),
    ("cp1252", {"Icelandic": "áðéíóúýþæö"}, 1.0),
    ("cp850", _WESTERN, 1.0),
    ("cp1252", _MIXED, 0.9),
    ("mac_roman", _MIXED, 0.9),
    ("cp850", _MIXED, 0.9),
)
"""Encodings with the letters of languages, and a factor for letters that no single language has."""

_SIGNS = frozenset(
    "€£¥§©®°±²³·\u00d7÷µ\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u201a…•«»\u2039\u203a¿¡ºª™½¼¾№\u00a0"
)
_APOSTROPHE = "\u2019"


def find_encoding(blocks: Iterable[bytes]) -> tuple[str, str] | None:
    """Return the encoding of a text and its language; None if no encoding is likely.

    Args:
        blocks: Text, in pieces that end anywhere.
    """
    words = list(_words(blocks))
    found = [*_narrow(words), *_wide(words)]
    best = max(found, key=lambda one: one[0], default=(0.0, "", ""))  # of equal ones the first
    return best[1:] if best[0] > _LEAST_SCORE else None


def _narrow(words: list[bytes]) -> Iterator[tuple[float, str, str]]:
    """Yield the scores of encodings of one byte a character, with their languages."""
    for encoding, languages, factor in _ALPHABETS:
        if (texts := _decoded(words, encoding)) is not None:
            for language, letters in languages.items():
                found = set(letters).intersection("".join(texts))
                bound = inf if len(found) >= _FEWEST_CHARACTERS else 1.0
                yield min(factor, bound) * _score(texts, letters), encoding, language


def _wide(words: list[bytes]) -> Iterator[tuple[float, str, str]]:
    """Yield the scores of encodings of several bytes a character, with their languages."""
    for encoding, (language, weigh) in _WIDE.items():
        characters = [
            c for text in _decoded(words, encoding) or () for c in text if not c.isascii()
        ]
        # Two signs of Latin text make some character, too.
        if len(set(characters)) >= _FEWEST_CHARACTERS:
            yield sum(map(weigh, characters)) / len(characters), encoding, language


def _words(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the first different words that are not ASCII."""
    seen: set[bytes] = set()
    for lines in _lines(blocks):
        if lines.isascii():
            continue
        for word in dict.fromkeys(_WORD.findall(lines)):
            if word.isascii() or word in seen:
                continue
            seen.add(word)
            yield word
            if len(seen) >= _MOST_WORDS:
                return


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text, many at a time; a long one in pieces."""
    rest = b""
    for block in blocks:
        lines, _, rest = (rest + block).rpartition(b"\n")
        yield lines
        if len(rest) > _LONGEST_LINE:
            yield rest
            rest = b""
    yield rest


def _decoded(words: list[bytes], encoding: str) -> list[str] | None:
    """Return words in an encoding; None if one is not in it. The last character of one may be cut."""
    make = codecs.getincrementaldecoder(CODECS.get(encoding, encoding))
    try:
        return [make().decode(word, len(word) < _LONGEST_WORD) for word in words]
    except UnicodeDecodeError:
        return None


def _score(texts: list[str], letters: str) -> float:
    """Return how well texts are of a language, from -1 to 1."""
    latin = "a" < letters[0] < "ɐ"
    weights = [
        _weight(text, place, letters, latin=latin)
        for text in texts
        for place, c in enumerate(text)
        if not c.isascii()
    ]
    return sum(weights) / max(1, len(weights))


def _weight(text: str, place: int, letters: str, *, latin: bool) -> float:
    """Return 1 for a letter of a language where one may be, -1 for what can hardly be there."""
    c = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    inside = before.isalpha() and after.isalpha()
    if c == _APOSTROPHE and inside:
        return 1.0
    if (found := letters.find(c if c in letters else c.lower())) < 0:
        return _SIGN if c in _SIGNS and not inside else -1.0
    if c.isupper() and (before.islower() or (before.isalpha() and after.islower())):
        return -1.0
    beside_ascii = any(beside.isascii() and beside.isalpha() for beside in (before, after))
    if (beside_ascii and not latin) or (c in _FINAL and after.isalpha()):
        return -1.0
    if len(text) == 1:
        return _LONE  # rather a sign of another encoding, such as of a currency
    return _RARE if not latin and found >= _FREQUENT else 1.0


def _is_mark(c: str) -> bool:
    """Return whether a character is a mark of East Asian text, or a wide one of Latin text."""
    return "\u3000" <= c <= "\u303f" or "\uff01" <= c <= "\uff5e"


def _japanese(c: str) -> float:
    if "\u3041" <= c <= "\u30ff":
        return 1.0
    if _is_mark(c) or "\uff61" <= c <= "\uff9f":
        return _SOME
    return 1.0 if _lead(c, "shift_jis") in range(0x88, 0x99) else -1.0


def _chinese(c: str) -> float:
    if _is_mark(c):
        return _SOME
    return 1.0 if _lead(c, "gb2312") in range(0xB0, 0xD8) else -1.0


def _traditional(c: str) -> float:
    if _is_mark(c):
        return _SOME
    return 1.0 if _lead(c, "big5") in range(0xA4, 0xC7) else -1.0


def _korean(c: str) -> float:
    if _is_mark(c):
        return _SOME
    return 1.0 if _lead(c, "euc_kr") in range(0xB0, 0xC9) else -1.0


def _lead(c: str, encoding: str) -> int:
    """Return the first byte of a character in an encoding of two bytes, 0 if it has none."""
    found = c.encode(encoding, errors="ignore")
    return found[0] if len(found) > 1 else 0


# In this order: what is frequent in Korean is so in Chinese and Japanese, too, but not the other way round.
_WIDE: dict[str, tuple[str, Callable[[str], float]]] = {
    "shift_jis": ("Japanese", _japanese),
    "euc_kr": ("Korean", _korean),
    "gbk": ("Chinese", _chinese),
    "euc_jp": ("Japanese", _japanese),
    "big5": ("Chinese", _traditional),
}
