"""Connections that make room for new ones."""

import asyncio

from app.connections.groups import CONNECTION, ConnectionGroups
from app.fairness.pace import Pace
from tests.app.connections.test_reading import serving


class Line:
    """Connection that notes whether it was closed."""

    looks = 0
    is_closed = False

    def drop(self):
        self.is_closed = True

    def __getattr__(self, name):
        Line.looks += 1
        raise AttributeError(name)


def lines(groups, caller, count, *, admitted):
    made = [Line() for _ in range(count)]
    for line in made:
        groups.put(line, "address")
        if admitted:
            groups.admit(line, caller)
        else:
            groups.put(line, caller)
    return made


def test_the_oldest_one_of_the_largest_group_on_which_nobody_waits_makes_room():
    groups = ConnectionGroups(100)
    lines(groups, "large", 60, admitted=True)
    first, second = lines(groups, "large", 2, admitted=False)
    other = lines(groups, "small", 30, admitted=False)
    groups.touch(first)
    assert groups.make_room()
    assert (second.is_closed, first.is_closed) == (True, False)
    assert groups.make_room()
    assert first.is_closed
    assert groups.make_room()  # all of the large group are busy
    assert other[0].is_closed
    assert len(groups) == 89


def test_a_connection_can_make_room_again_once_its_response_is_complete():
    groups = ConnectionGroups(10)
    busy = lines(groups, "one", 3, admitted=True)
    assert not groups.make_room()
    groups.touch(busy[1])
    assert groups.make_room()
    assert busy[1].is_closed
    assert busy[1] not in groups
    groups.touch(busy[1])
    assert not groups.make_room()
    assert len(groups) == 2


def test_no_busy_connection_is_looked_at_to_make_room_for_a_new_one():
    groups = ConnectionGroups(4_000)
    for project in range(8):
        lines(groups, str(project), 500, admitted=True)
    Line.looks = 0
    assert not groups.make_room()
    assert Line.looks == 0


def test_who_is_admitted_after_the_connection_was_lost_counts_no_more():
    async def main():
        groups, known = ConnectionGroups(100), asyncio.Event()

        async def application(scope, receive, _send):
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            scope["state"][CONNECTION].assign("key_1")  # which was looked for meanwhile
            known.set()

        server, port = await serving(application, Pace(each=2, most=64), open_connections=groups)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
        await known.wait()
        server.close()
        return len(groups)

    assert asyncio.run(main()) == 0
