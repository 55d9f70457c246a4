"""Rows on the wire, cut at every byte."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from numpy.typing import NDArray

from densityd.client import FileFormatError, UnexpectedAnswerError
from densityd.client.wire.arrow import encode_table
from densityd.client.wire.events import EventDecoder
from densityd.client.wire.files import guess_media_type, open_target
from densityd.client.wire.npy import encode_array

ROWS = np.random.default_rng(0).normal(size=(50, 3))
TABLE = pa.table({"a": ROWS[:, 0], "b": ROWS[:, 1].astype(np.float32)})


def single_bytes(body: bytes) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))]


@pytest.mark.parametrize("rows", [ROWS, ROWS.T, ROWS[::2].astype(np.float16), ROWS[:0]])
def test_an_array_is_an_npy_file(rows: NDArray[Any]) -> None:
    body = encode_array(rows)
    data = b"".join(body.chunks())
    assert len(data) == body.size
    assert np.array_equal(np.load(io.BytesIO(data)), rows)


def test_a_table_is_an_arrow_stream_and_without_rows_has_its_columns() -> None:
    table = pa.concat_tables([TABLE, TABLE.slice(3, 7)])
    assert pa.ipc.open_stream(b"".join(encode_table(table).chunks())).read_all().equals(table)
    data = b"".join(encode_table(TABLE.slice(0, 0)).chunks())
    assert pa.ipc.open_stream(data).read_all().column_names == ["a", "b"]


def test_bodies_can_be_sent_again() -> None:
    for body in (encode_array(ROWS), encode_table(TABLE)):
        assert b"".join(body.chunks()) == b"".join(body.chunks())


def test_events_come_whole_however_they_are_cut() -> None:
    stream = b'retry: 2000\n\nid: 4\nevent: epoch\ndata: {"epoch": 2}\n\n: keep-alive\n\n'
    decoder = EventDecoder()

    [event] = [one for byte in single_bytes(stream) for one in decoder.feed(byte)]

    assert (event.id, event.event, event.data) == (4, "epoch", {"epoch": 2})


def test_what_is_no_event_of_ours_is_refused() -> None:
    with pytest.raises(UnexpectedAnswerError):
        list(EventDecoder().feed(b"id: one\ndata: {}\n\n"))


def test_a_file_is_replaced_as_a_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")

    def fail_halfway() -> None:
        with open_target(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == "before"
    with open_target(target) as file:
        file.write(b"whole")
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]
    with open_target(Path("/dev/null")) as file:
        file.write(b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(FileNotFoundError) as caught, open_target(tmp_path / "no" / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "out")


def test_a_name_without_a_format_is_refused_with_those_that_there_are() -> None:
    assert guess_media_type(Path("A.CSV")) == "text/csv"
    with pytest.raises(FileFormatError, match=r"rows\.txt.*\.parquet"):
        guess_media_type(Path("rows.txt"))
