"""Exported files whose record of the version says something else."""

import json
from collections.abc import Mapping

from models_store.exports.exported_files import RECORD_KEY


def edited(body: bytes, change: Mapping[str, object]) -> bytes:
    """The file with other fields in its record."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    record = json.loads(header["__metadata__"][RECORD_KEY])
    header["__metadata__"][RECORD_KEY] = json.dumps({**record, **change})
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content + body[8 + length :]
