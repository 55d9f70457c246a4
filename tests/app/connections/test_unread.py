"""Options of sockets, which some kernels lack and closed sockets refuse."""

import socket

import pytest

from app.connections.unread import LingeringTransport, bound_unsent


class Line:
    """A transport, and its socket, which refuses all options."""

    family = socket.AF_INET
    aborted = False
    write = get_write_buffer_size = None

    def __init__(self, error):
        self.error = error

    def setsockopt(self, *_):
        raise self.error

    def get_extra_info(self, _):
        return self

    def abort(self):
        self.aborted = True


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), ValueError("of uvloop")])
def test_a_connection_that_is_closed_already_may_be_reset(error):
    line = Line(error)
    LingeringTransport(line, lambda: None).reset()  # type: ignore[arg-type]  # it has what is asked for
    assert line.aborted


def test_connections_are_served_where_the_kernel_bounds_nothing():
    bound_unsent(Line(OSError()))  # type: ignore[arg-type]  # as above
