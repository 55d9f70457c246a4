import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from tabular.encodings import find_encoding
from tabular.readers import text as text_files
from tabular.readers.text import open_text

CITIES = ["Zürich", "Genève", "Köniz", "Bern"]


def written(tmp_path, encodings):
    path = tmp_path / "table.csv"
    lines = [f"{n},{CITIES[n % 4]}\n".encode(encodings[n // 4 % len(encodings)]) for n in range(64)]
    path.write_bytes(b"n,city\n" + b"".join(lines))
    return path


@pytest.mark.parametrize("encodings", [["utf-8", "cp1252"], ["cp1252", "cp1252", "utf-8"]])
def test_lines_of_two_encodings_are_each_read_in_their_own(tmp_path, encodings):
    text = open_text(written(tmp_path, encodings), None)
    with text.open() as file:
        lines = file.read().decode().splitlines()
    assert lines[1:] == [f"{n},{CITIES[n % 4]}" for n in range(64)]
    [warning] = text.warnings
    assert warning["detail"].startswith(
        "Some lines of the file are UTF-8, the others were read as cp1252"
    )


def test_a_file_of_one_encoding_is_not_called_mixed(tmp_path):
    [warning] = open_text(written(tmp_path, ["cp1252"]), None).warnings
    assert warning["detail"].startswith("The file is not UTF-8 and was read as cp1252")
    assert open_text(written(tmp_path, ["utf-8"]), None).warnings == []


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n", b"\n\n"])
@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_a_mixed_file_is_read_alike_in_blocks_of_any_size(tmp_path, monkeypatch, block, end):
    monkeypatch.setattr("tabular.readers.text._BLOCK_BYTES", block)
    path = written(tmp_path, ["utf-8", "cp1252"])
    path.write_bytes(path.read_bytes().removesuffix(b"\n") + end)
    with open_text(path, None).open() as file:
        lines = file.read().decode().split("\n")
    assert "".join(lines[1:65]).replace("\r", "") == "".join(
        f"{n},{CITIES[n % 4]}" for n in range(64)
    )
    assert "\n".join(lines[64:])[len("63,Bern") :].encode() == end


def test_lines_that_are_not_utf_8_are_not_looked_at_one_by_one(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("".join(f"{n},{CITIES[n % 4]}\n" for n in range(20_000)).encode("cp1252"))
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, _function: calls.update([event]))
    try:
        text = open_text(path, None)
    finally:
        sys.setprofile(None)
    assert text.warnings[0]["detail"].startswith("The file is not UTF-8 and was read as cp1252")
    assert calls.total() < 20_000


def test_few_lines_are_looked_through_in_one_go(tmp_path, monkeypatch):
    sizes: list[int] = []

    def noted(blocks: Iterable[bytes]) -> tuple[str, str] | None:
        pieces = list(blocks)
        sizes.extend(map(len, pieces))
        return find_encoding(pieces)

    monkeypatch.setattr(text_files, "find_encoding", noted)
    path = tmp_path / "table.csv"
    path.write_bytes("Zürich\n".encode("cp1252") * 200_000)
    assert open_text(path, None).size == 200_000 * len("Zürich\n".encode())
    assert sum(sizes) == path.stat().st_size
    assert max(sizes) < 128 * 1024
