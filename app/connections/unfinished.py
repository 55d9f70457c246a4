"""Bodies on their way: the more there are, the less of each waits in memory."""

_ALL_BYTES = 8 * 1024 * 1024  # of a place
_MOST_BYTES, _LEAST_BYTES = 512 * 1024, 8 * 1024


class UnfinishedBodies:
    """Bodies that have begun to come and have not come to their end, on all connections.

    What of a body waits for its reader, for a thread, for the disk or for more rows is counted
    nowhere: each of these places keeps a piece. All pieces of a place have a bound together.
    """

    def __init__(self) -> None:
        self._bodies: set[object] = set()

    def begin(self, body: object) -> None:
        """Note that the rest of a body is still to come."""
        self._bodies.add(body)

    def end(self, body: object) -> None:
        """Note that nothing more comes of a body, if it is known."""
        self._bodies.discard(body)

    def piece_bytes(self, most: int = _MOST_BYTES) -> int:
        """Return how many bytes of each body may wait in one place.

        Args:
            most: Bytes that are enough there, however few bodies there are.
        """
        return min(most, max(_LEAST_BYTES, _ALL_BYTES // max(1, len(self._bodies))))


UNFINISHED = UnfinishedBodies()
"""Bodies that come to this process."""
