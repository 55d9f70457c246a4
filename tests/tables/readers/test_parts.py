"""Files of which little is in memory while their rows wait to be used."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_cells
from tabular.readers.layout import Layout, find_layout
from tabular.readers.section import Section, parts
from tabular.readers.text import TextFile, open_text

ROW = '{place},"two\nlines of ""text""\n",{place}.5\n'


def written(path: Path, rows: str) -> Path:
    file = path / "table.csv"
    file.write_bytes(("a,b,c\n" + rows).encode())
    return file


def content(text: TextFile, part: Layout) -> bytes:
    with closing(Section(text, part)) as section:
        return section.read()


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ("".join(ROW.format(place=place) for place in range(1000)), 30),
        ("1,2,3\n" * 1000, 5),
        ("1,2,3\r\n" * 1000 + "4,5,6", 5),
        ("1,2,3\n" + "1,{},3\n".format("x" * 5000) + "1,2,3\n" * 500, 2),
        ('1,"{}",3\n'.format("\n" * 5000) * 3, 3),
        ("1,2,3\n", 1),
    ],
)
def test_parts_are_whole_lines_and_together_the_whole(tmp_path, rows, count):
    text = open_text(written(tmp_path, rows), "utf-8")
    layout = find_layout(text, ParseOptions(delimiter=","))
    found = [content(text, part) for part in parts(text, layout, 1024)]
    assert b"".join(found) == rows.encode()
    assert all(part.endswith(b"\n") and part.count(b'"') % 2 == 0 for part in found[:-1])
    assert len(found) >= count
    [short] = parts(text, replace(layout, stop=layout.start + 6), 1024)
    assert short.stop == layout.start + 6


@pytest.mark.parametrize("ends", ["\r", "\n"])
def test_lines_that_do_not_end_are_one_part(tmp_path, ends):
    """Take a file without line ends, or with a quote that is not closed, as a whole."""
    rows = f"1,2,3{ends}" * 1000
    text = open_text(written(tmp_path, rows if ends == "\r" else '1,"2,3\n' + rows), "utf-8")
    layout = find_layout(text, ParseOptions(delimiter=","))
    [part] = parts(text, layout, 1024)
    assert len(content(text, part)) >= len(rows)


def test_a_file_is_not_read_ahead_of_its_rows(tmp_path, monkeypatch):
    """Arrow reads 32 blocks ahead; rows are the same without."""
    file = written(tmp_path, "".join(ROW.format(place=place) for place in range(300_000)))
    taken = 0
    read = Section.read

    def counted(self: Section, size: int = -1) -> bytes:
        nonlocal taken
        block = read(self, size)
        taken += len(block)
        return block

    cells = {}
    for ahead in (True, False):
        options = ParseOptions(delimiter=",", reads_ahead=ahead, max_bytes=1 << 40)
        source = open_cells(file, format=TableFormat.CSV, options=options)
        monkeypatch.setattr(Section, "read", counted)
        taken = 0
        batches = source.read(source.text)
        came = [next(batches) for _ in range(8)]
        used = sum(batch.num_rows for batch in came) * file.stat().st_size // 300_000
        if not ahead:
            assert taken < used + (1 << 20)
        cells[ahead] = [row for batch in [*came, *batches] for row in batch.to_pylist()]
        monkeypatch.setattr(Section, "read", read)
    assert cells[True] == cells[False]
