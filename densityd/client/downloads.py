"""Downloads that continue where they broke off."""

from collections.abc import Mapping

from densityd.client.call import Retry
from densityd.client.errors import TransportError, UnexpectedAnswerError
from densityd.client.retrying import Retries

_PARTIAL_CONTENT = 206
_ENOUGH_BYTES = 2**20


class DownloadProgress:
    """Position in a file that is downloaded.

    Args:
        retries: Policy by which a broken download continues.
    """

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._etag: str | None = None
        self._written = self._new = 0
        self._broken = 0

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; none for the whole."""
        if self._written == 0 or self._etag is None:
            return {}
        return {"Range": f"bytes={self._written}-", "If-Range": self._etag}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take notice of a response, before its body.

        Raises:
            UnexpectedAnswerError: It is not the rest of the file.
        """
        if self._written > 0:
            begins = headers.get("Content-Range", "").startswith(f"bytes {self._written}-")
            if status != _PARTIAL_CONTENT or not begins:
                raise UnexpectedAnswerError("the file was changed during the download")
        elif "bytes" in headers.get("Accept-Ranges", ""):
            self._etag = headers.get("ETag")
        self._new = 0

    def add(self, count: int) -> None:
        """Take notice of bytes that are written."""
        self._written += count
        self._new += count

    def pause_s(self, error: TransportError) -> float | None:
        """Return the seconds after which to ask for the rest; None if that is of no use."""
        if self._written == 0 or self._etag is None:
            return None  # a request without an answer was sent again already
        self._broken = 1 if self._new >= _ENOUGH_BYTES else self._broken + 1
        return self._retries.pause_s(error, sent=self._broken, retry=Retry.ALWAYS)
