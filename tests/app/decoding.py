"""Decoding a body of rows without a server."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from app.limits import Threads
from app.rows.body import RowsBody
from app.rows.codecs import CODECS
from app.rows.shape import Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular.formats import TableFormat

_CODECS = {codec.format: codec for codec in CODECS}


def decode(body: bytes, kind: TableFormat, shape: RowsShape, **parameters: str) -> Floats:
    """The rows of a body; nothing may be left on the disk."""
    with TemporaryDirectory() as folder:
        try:
            return asyncio.run(_decode(body, kind, shape, Path(folder), parameters))
        finally:
            assert not [path for path in Path(folder).rglob("*") if path.is_file()]


async def _decode(
    body: bytes, kind: TableFormat, shape: RowsShape, folder: Path, parameters: Mapping[str, str]
) -> Floats:
    source = RowsBody(
        content=body,
        format=kind,
        parameters=parameters,
        shape=shape,
        settings=ApiSettings(data_dir=folder),
        blobs=Blobs.in_folder(folder),
        parsers=Threads("parsers", 1, each=1),
    )
    return (await _CODECS[kind].read(source)).rows
