"""Group A against the running service: files that lie, expand or hold programs leave nothing."""

import io
import pickle  # noqa: TID251 - to see that nobody unpickles it
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tests.faults.service import Service
from tests.tables.files import npy, parquet

CSV = "text/csv"
JSON = "application/json"
NPY = "application/x-npy"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"


def npy_header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zip_slip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../x.npy", npy(np.eye(3)))
    return buffer.getvalue()


def tar_link() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("table.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def bomb() -> bytes:
    zeros = pa.table({"a": np.zeros(20_000_000)})
    return parquet(zeros, compression="zstd", use_dictionary=False)


def wide_bomb() -> bytes:
    zeros = pa.table({f"c{i}": np.zeros(100_000) for i in range(30)})
    return parquet(zeros, compression="zstd", use_dictionary=False)


def row_groups() -> bytes:
    return parquet(pa.table({"a": np.arange(10_001.0)}), row_group_size=1)


FILES: dict[str, tuple[bytes | Callable[[], bytes], str, str]] = {
    "10000 columns": (b"c," * 9_999 + b"c\n1\n", CSV, "limit-columns"),
    "a number of 3 MB": (b"[[1, 2], [1, %b]]" % (b"7" * 3_000_000), JSON, "json-number"),
    "an unclosed quote": (b'a,b\n1,"2\n' + b"3,4\n" * 900_000, CSV, "dataset-parse"),
    "too many rows": (b"a\n" + b"1\n" * 1_000_001, CSV, "limit-rows"),
    "a huge shape": (npy_header("(1000000000000, 8)"), NPY, "dataset-truncated"),
    "a huge shape of few rows": (npy_header("(2, 99)") + bytes(8), NPY, "dataset-truncated"),
    "objects": (npy_header("(2, 2)", "|O") + b"cos\nsystem\n", NPY, "dataset-pickle-forbidden"),
    "a Parquet bomb": (bomb, PARQUET, "limit-rows"),
    "a Parquet bomb of many columns": (wide_bomb, PARQUET, "dataset-too-large"),
    "10001 row groups": (row_groups, PARQUET, "limit-metadata"),
    "a zip with a way out": (zip_slip(), NPY, "media-type"),
    "a zip as CSV": (zip_slip(), CSV, "media-type"),
    "a tar with a link": (tar_link(), NPY, "media-type"),
    "a tar as CSV": (tar_link(), CSV, "dataset-encoding"),
    "a pickle": (pickle.dumps({"a": [1.0]}), NPY, "media-type"),
    "a pickle as Arrow": (pickle.dumps({"a": [1.0]}), ARROW, "media-type"),
}


@pytest.mark.long
@pytest.mark.parametrize(("body", "media_type", "slug"), FILES.values(), ids=list(FILES))
def test_a_bad_file_is_refused_and_leaves_nothing(
    service: Service, body: bytes | Callable[[], bytes], media_type: str, slug: str
) -> None:
    content = body if isinstance(body, bytes) else body()
    with service.client() as client:
        before = client.get("/v1/datasets").json()
        files = tables(service)
        headers = {"Content-Type": media_type}
        response = client.post("/v1/datasets", content=content, headers=headers)
        assert (response.json()["type"], response.status_code) == (
            f"/problems/{slug}",
            STATUSES.get(slug, 422),
        )
        assert len(response.content) <= 8192
        assert client.get("/v1/datasets").json() == before
    assert tables(service) == files


STATUSES = {
    "json-number": 400,
    "media-type": 415,
    **dict.fromkeys({"dataset-too-large", "limit-rows"}, 413),
}
ARCHIVES = ["application/zip", "application/x-tar", "application/x-pickle", "application/gzip"]


@pytest.mark.parametrize("media_type", ARCHIVES)
@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/models/people/log_prob"])
def test_archives_and_pickles_are_no_media_type_of_any_route(service, path, media_type):
    with service.client() as client:
        headers = {"Content-Type": media_type}
        response = client.post(path, content=zip_slip(), headers=headers)
    assert (response.status_code, response.json()["type"]) == (415, "/problems/media-type")


def test_names_that_look_like_something_else_are_only_names(service):
    names = ["../../etc/passwd", "C:\\x", 'x"; DROP TABLE job;--', "<script>alert(1)</script>"]
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    table = f"{quoted}\n1,2,3,4\n2,3,5,9\n3,5,9,1\n".encode()
    with service.client() as client:
        response = client.post("/v1/datasets", content=table, headers={"Content-Type": CSV})
        assert response.status_code == 201
        assert response.headers["content-type"] == "application/json"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        read = client.get(f"/v1/datasets/{response.json()['id']}").json()
    assert [column["name"] for column in read["columns"]] == names


def tables(service: Service) -> set[str]:
    return {path.name for path in (service.folder / "blobs").rglob("*") if path.is_file()}
