"""Decoding a body of rows without a server."""

from pathlib import Path
from tempfile import TemporaryDirectory

from app.rows.decode import RowsBody
from app.rows.shape import Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular.formats import TableFormat


def decode(body: bytes, kind: TableFormat, shape: RowsShape, **parameters: str) -> Floats:
    """The rows of a body; nothing may be left on the disk."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            settings = ApiSettings(data_dir=folder)
            return (
                RowsBody(body, kind, parameters, shape, settings, Blobs.in_folder(folder))
                .read()
                .rows
            )
        finally:
            assert not [path for path in folder.rglob("*") if path.is_file()]
