"""Texts about files of the store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models_store.files.blobs import FoundFile

_MIB = 2**20


def format_count(files: "Sequence[FoundFile]") -> str:
    """Return the number and the bytes of some files."""
    size = sum(file.bytes for file in files)
    return f"{len(files)} files ({size / _MIB:.1f} MiB)"


def format_file(file: "FoundFile") -> str:
    """Return one line about a file."""
    return f"{file.key}  {file.bytes} bytes, {file.age_s / 3600:.1f} h old"
