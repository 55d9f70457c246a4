"""Formats of rows: their readers and encoders, and which of them the headers of a request name.

A new format is a member of `TableFormat` with its media type, a reader in `tabular/readers`, and one
entry here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import partial

from app.http.accept import best_media_type
from app.http.json_body import MAX_CONTENT_TYPE
from app.problems.problem import Problem
from app.rows.body import Decoded, RowsBody
from app.rows.decode.json import read_json, read_ndjson
from app.rows.decode.npy import read_npy
from app.rows.decode.tables import read_table, read_text
from app.rows.encode import Encoder, JsonEncoder, NdjsonEncoder, TableEncoder
from app.rows.response_table import ResponseTable
from app.settings import ApiSettings
from tabular.formats import MEDIA_TYPES, TableFormat
from tabular.writers import ArrowTable, CsvTable, NpyTable, ParquetTable


@dataclass(frozen=True)
class Codec:
    """A format.

    Args:
        format: Format that is read and written.
        read: Reader of a body as rows of the model's columns in their order. It raises `Problem` for
            what is wrong with the body.
        encoder: Constructor of the encoder of a response.
        text: True for text, which compresses well; floats do not.
        columnar: True where each column of a response takes time of its own, tens of microseconds.
    """

    format: TableFormat
    read: Callable[[RowsBody], Awaitable[Decoded]]
    encoder: Callable[[ResponseTable], Encoder]
    text: bool = False
    columnar: bool = False

    @property
    def media_type(self) -> str:
        """Media type in `Content-Type` and `Accept`."""
        return _MEDIA_TYPES[self.format]

    def max_bytes(self, settings: ApiSettings) -> int:
        """Return the largest size of a body of rows; documents of JSON become many objects at once."""
        if self.format is TableFormat.JSON:
            return min(settings.max_json_bytes, settings.max_body_bytes)
        return settings.max_body_bytes


_MEDIA_TYPES = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}

CODECS = (
    Codec(TableFormat.JSON, read_json, JsonEncoder, text=True),
    Codec(TableFormat.NDJSON, read_ndjson, NdjsonEncoder, text=True),
    Codec(TableFormat.CSV, read_text, partial(TableEncoder, CsvTable), text=True),
    Codec(TableFormat.NPY, read_npy, partial(TableEncoder, NpyTable)),
    Codec(TableFormat.ARROW, read_table, partial(TableEncoder, ArrowTable), columnar=True),
    Codec(TableFormat.PARQUET, read_table, partial(TableEncoder, ParquetTable), columnar=True),
)
"""Formats; the first is the default."""

BY_MEDIA_TYPE = {codec.media_type: codec for codec in CODECS}
_OFFERED = tuple(BY_MEDIA_TYPE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})
TEXT_AND_CURL = "with text in UTF-8; with curl: -H 'Content-Type: text/csv'"
"""End of the advice to a caller whose body has no Content-Type, or another one."""


def request_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]]:
    """Return the format of a body, and the parameters of its media type.

    Raises:
        Problem: `media-type` when there is none or it is not supported.
    """
    found = known_codec(content_type)
    if found is None:
        raise Problem(
            "media-type",
            f"The body's Content-Type must be one of {', '.join(_OFFERED)}, {TEXT_AND_CURL}.",
            members={"supported": list(_OFFERED)},
        )
    return found


def known_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]] | None:
    """Return what `request_codec` does; None for other types, too long ones, and text that is not in UTF-8."""
    codec = BY_MEDIA_TYPE.get(content_type or "")
    if codec is not None:  # most requests cost no parsing
        return codec, {}
    if len(content_type or "") > MAX_CONTENT_TYPE:
        return None
    message = Message()
    message["content-type"] = content_type or ""
    codec = BY_MEDIA_TYPE.get(message.get_content_type())
    if codec is None or message.get_content_charset("utf-8") not in _CHARSETS:
        return None
    parameters = message.get_params(failobj=[])[1:]
    # `name*=utf-8''value` (RFC 2231) comes in three parts.
    return codec, {
        name.lower(): collapse_rfc2231_value(value).lower() for name, value in parameters
    }


def response_codec(accept: str | None, *, default: str = _OFFERED[0]) -> Codec:
    """Return the format that an `Accept` header prefers.

    Args:
        accept: Header `Accept`; None accepts anything.
        default: Media type for clients that accept all alike.

    Raises:
        Problem: `not-acceptable` when it accepts no supported format.
    """
    if accept is None:
        return BY_MEDIA_TYPE[default]
    known = BY_MEDIA_TYPE.get(accept)
    if known is not None:  # costs no parsing
        return known
    offered = sorted(_OFFERED, key=lambda media_type: media_type != default)  # the default first
    return BY_MEDIA_TYPE[best_media_type(accept, offered)]
