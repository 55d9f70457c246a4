"""Names of months and days in several languages, as dates have them."""

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class CalendarNames:
    """Names of a language, as they are written in a date.

    Attributes:
        months: Names of the months, from January.
        short_months: Short names of the months.
        days: Names of the days, from Monday.
    """

    months: tuple[str, ...]
    short_months: tuple[str, ...]
    days: tuple[str, ...]


def _names(months: str, days: str, short: str = "") -> CalendarNames:
    full = tuple(months.split())
    cut = tuple(short.split()) or tuple(name[:3] for name in full)
    return CalendarNames(full, cut, tuple(days.split()))


ENGLISH = "en"
"""Language of a format that names none."""

NAMES = {
    ENGLISH: _names(
        "January February March April May June July August September October November December",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    ),
    "de": _names(
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    ),
    "fr": _names(
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "janv févr mars avr mai juin juil août sept oct nov déc",
    ),
    "es": _names(
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "lunes martes miércoles jueves viernes sábado domingo",
    ),
    "it": _names(
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    ),
    "pt": _names(
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "segunda terça quarta quinta sexta sábado domingo",
    ),
    "nl": _names(
        "januari februari maart april mei juni juli augustus september oktober november december",
        "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
    ),
    "sv": _names(
        "januari februari mars april maj juni juli augusti september oktober november december",
        "måndag tisdag onsdag torsdag fredag lördag söndag",
    ),
    "da": _names(
        "januar februar marts april maj juni juli august september oktober november december",
        "mandag tirsdag onsdag torsdag fredag lørdag søndag",
    ),
    "no": _names(
        "januar februar mars april mai juni juli august september oktober november desember",
        "mandag tirsdag onsdag torsdag fredag lørdag søndag",
    ),
    "pl": _names(
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października"
        " listopada grudnia",
        "poniedziałek wtorek środa czwartek piątek sobota niedziela",
    ),
    "ru": _names(
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
        "понедельник вторник среда четверг пятница суббота воскресенье",
    ),
    "tr": _names(
        "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",  # noqa: RUF001  Turkish
        "Pazartesi Salı Çarşamba Perşembe Cuma Cumartesi Pazar",  # noqa: RUF001  as above
    ),
}

# Other spellings, with the number of the month from 0.
_OTHER_MONTHS = {
    ENGLISH: {"sept": 8},
    "de": {"jänner": 0, "jän": 0, "mrz": 2, "sept": 8},
    "fr": {"jan": 0, "fevrier": 1, "fev": 1, "fév": 1, "fevr": 1, "aout": 7, "sep": 8}
    | {"decembre": 11, "dec": 11},
    "es": {"setiembre": 8, "sept": 8},
    "it": {"sett": 8},
    "pt": {"marco": 2},
    "nl": {"maa": 2},
    "sv": {"sept": 8},
    "da": {"sept": 8},
    "no": {"sept": 8},
}


@cache
def month_numbers(language: str) -> dict[str, int]:
    """Return the months of a language from 0, by their names in small letters."""
    names = NAMES[language]
    found = {name.lower(): i for i, name in enumerate(names.short_months)}
    # The first three letters, where they are one month's alone.
    cut = [name.lower()[:3] for name in names.months]
    found |= {name: i for i, name in enumerate(cut) if cut.count(name) == 1}
    found |= {name.lower(): i for i, name in enumerate(names.months)}
    return found | _OTHER_MONTHS.get(language, {})
