"""Encodings of CSV files that are not Unicode, detected from the words of a language."""

from pathlib import Path

import pytest

from tabular.encodings import find_encoding
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.parse import parse_table

RUSSIAN = "Москва Казань Новосибирск оплачен ожидание Иванова итог"
WORDS = {
    "cp1251": RUSSIAN,
    "koi8_r": RUSSIAN.lower(),
    "cp866": RUSSIAN,
    "mac_cyrillic": RUSSIAN,
    "shift_jis": "東京 大阪 札幌 支払済 カタカナ 田中",
    "euc_jp": "東京 おおさか 札幌 支払済 カタカナ 田中",
    "gbk": "北京 上海 深圳 已付款 张伟 牛奶",
    "big5": "台北 高雄 已付款 陳小明 牛奶 客戶",
    "euc_kr": "서울 부산 대구 결제완료 김철수 우유",
    "cp1252": "Málaga León señor année déjà Österreich",
    "mac_roman": "Zürich Köln Größe schön Straße",
    "cp1250": "Łódź Kraków Gdańsk źródło śliwka",
    "iso8859_2": "Łódź Kraków Gdańsk źródło śliwka",
    "cp1253": "Αθήνα Θεσσαλονίκη Πάτρα Ηράκλειο",
    "cp1255": "תל־אביב ירושלים חיפה שולם ממתין ישראל",
    "cp1256": "القاهرة الرياض مدفوع مؤجل الإجمالي محمد",
    "cp1254": "İstanbul İzmir Muğla Şanlıurfa çocuk",  # noqa: RUF001  Turkish
}


def accept(folder: Path, data: bytes, **options: object) -> TableSummary:
    (folder / "a.csv").write_bytes(data)
    return parse_table(
        folder / "a.csv",
        folder / "a.npy",
        format=TableFormat.CSV,
        options=ParseOptions(**options),  # type: ignore[arg-type]  # a test's own
    )


def table(words: str) -> tuple[str, set[str]]:
    levels = words.split()
    lines = [f"{levels[0]};x"] + [f"{levels[i % len(levels)]};{i / 7:.2f}" for i in range(60)]
    return "\n".join(lines), set(levels)


@pytest.mark.parametrize("encoding", WORDS)
def test_the_words_of_a_language_tell_the_encoding(tmp_path: Path, encoding: str) -> None:
    text, levels = table(WORDS[encoding])
    found = accept(tmp_path, text.encode(encoding))
    (warning,) = [one for one in found.warnings if one["code"] == "encoding"]
    assert f"read as {encoding} (" in warning["detail"]
    assert set(found.columns[0].column.levels) == levels
    assert found.columns[0].name == text.split(";")[0]
    stated = accept(tmp_path, text.encode(encoding), encoding=encoding)
    assert [c.column for c in stated.columns] == [c.column for c in found.columns]
    assert "encoding" not in [one["code"] for one in stated.warnings]


def test_katakana_of_half_a_width_are_told(tmp_path: Path) -> None:
    text, levels = table("ﾄｳｷｮｳ ｵｵｻｶ ｼﾊﾗｲｽﾞﾐ ｶﾞｿﾘﾝ ﾃﾞﾝｷ")
    found = accept(tmp_path, text.encode("cp932"))
    (warning,) = [one for one in found.warnings if one["code"] == "encoding"]
    assert "read as shift_jis (Japanese" in warning["detail"]
    assert set(found.columns[0].column.levels) == levels


@pytest.mark.parametrize(
    "text", ["€ 12", "m² °C", "£100", "it\u2019s \u201cso\u201d \u2013 far", "café"]
)
def test_few_signs_are_those_of_western_europe(text: str) -> None:
    found = find_encoding([text.encode("cp1252")])
    assert found is not None
    assert found[0] == "cp1252"


def test_what_is_of_no_language_is_read_all_the_same(tmp_path: Path) -> None:
    text, levels = table("q\x81 \x8d\x8f \xa0\x9d")
    found = accept(tmp_path, text.encode("latin-1"))
    (warning,) = [one for one in found.warnings if one["code"] == "encoding"]
    assert "read as latin-1." in warning["detail"]
    assert len(found.columns[0].column.levels) == len(levels)


def test_long_words_and_lines_cost_no_more_than_their_length() -> None:
    assert find_encoding([b"a" * 4_000_000 + b"\xe9"] * 2) is None
