"""File of a multipart form, as a stream."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.http.json_body import MAX_CONTENT_TYPE
from app.limits import in_thread
from app.problems.problem import Problem

FILE_PART = "file"
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 8 * 1024
_MAX_SEMICOLONS = 64  # of a header: reading it takes time with its length for each
_MAX_HEADERS_BYTES = 512 * 1024  # of all parts
_MAX_PARTS = 4096
_MAX_FIELD_BYTES = 48 * 1024


@dataclass(frozen=True)
class FilePart:
    """File with headers that were read, and content that is still to come.

    Args:
        content_type: Content-Type of the part, with its parameters; "" if it has none.
        file_name: Name that the caller gave the file; never to be used as a path.
        chunks: Content of the file; ends with an error where the form is malformed.
        fields: Names and texts of the parts before the file.
    """

    content_type: str
    file_name: str | None
    chunks: AsyncIterator[bytes]
    fields: list[tuple[str, str]]


async def file_part(request: Request) -> FilePart:
    """Read a form up to the content of its last part, `file`; those before it are short fields.

    Raises:
        Problem: The form is malformed, has no part `file`, or long fields before it.
    """
    form = _Form(request.headers["content-type"])
    stream = request.stream()
    async for chunk in stream:
        await in_thread(form.feed, chunk)
        if form.headers_complete:
            break
    form.require_file()
    chunks = _content(form, stream)
    return FilePart(form.part_content_type, form.file_name, chunks, form.fields)


async def _content(form: "_Form", stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in form.take():
        yield piece
    async for chunk in stream:
        form.feed(chunk)
        for piece in form.take():
            yield piece
    if not form.complete:
        raise Problem("multipart", "The form ends without its closing boundary.")


@dataclass
class _Form:
    """State of the parser, and the fields found so far."""

    content_type: str
    part_content_type: str = ""
    file_name: str | None = None
    headers_complete: bool = False
    complete: bool = False
    fields: list[tuple[str, str]] = field(default_factory=list)
    _value: bytearray = field(default_factory=bytearray)
    _field_bytes: int = 0
    _headers_bytes: int = 0
    _name: bytes | None = None
    _parts: int = 0
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _pieces: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        shown = self.content_type[:MAX_CONTENT_TYPE]  # a boundary has at most 70 characters
        boundary = parse_options_header(shown)[1].get(b"boundary", b"")
        if not boundary:
            raise Problem("multipart", "The Content-Type names no boundary.")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError as error:
            raise Problem("multipart", "The boundary is too long.") from error

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("multipart", "The form breaks the grammar of RFC 7578.") from error

    def take(self) -> Iterator[bytes]:
        pieces, self._pieces = self._pieces, []
        return iter(pieces)

    def require_file(self) -> None:
        if not self.headers_complete:
            raise Problem("multipart", f"The form has no part named `{FILE_PART}`.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self.headers_complete or self._parts > _MAX_PARTS:
            raise Problem(
                "multipart", f"The last part of the form must be `{FILE_PART}`, after few options."
            )
        self._name, self.part_content_type, self.file_name = None, "", None
        self._value = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        self._headers_bytes += len(name) + len(value)
        if self._headers_bytes > _MAX_HEADERS_BYTES:
            raise Problem("multipart", "The headers of all parts are too long together.")
        if value.count(b";") > _MAX_SEMICOLONS:
            raise Problem("multipart", "A header of a part has too many parameters.")
        if name.lower() == b"content-disposition":
            options = parse_options_header(value)[1]
            self._name = options.get(b"name")
            file_name = options.get(b"filename")
            self.file_name = None if file_name is None else file_name.decode(errors="replace")
        elif name.lower() == b"content-type":
            self.part_content_type = value.decode("latin-1").strip()

    def _on_headers_finished(self) -> None:
        if self._name is None:
            raise Problem("multipart", "A part of the form has no name.")
        self.headers_complete = self._name == FILE_PART.encode()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.headers_complete:
            self._pieces.append(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise Problem("multipart", f"The parts before `{FILE_PART}` are too long.")
        self._value += data[start:end]

    def _on_part_end(self) -> None:
        if not self.headers_complete:
            name = (self._name or b"").decode(errors="replace")
            self.fields.append((name, self._value.decode(errors="replace")))

    def _on_end(self) -> None:
        self.complete = True
