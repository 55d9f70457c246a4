import pytest

from tables.readers.text import open_text

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
