"""Raw bytes, and what RFC 9110 and RFC 9112 say that becomes of them."""

import json
import socket
import time
from contextlib import suppress

import pytest

from app.connections.groups import MAX_PIPELINED
from app.connections.receiving.framing import MAX_HEADERS
from app.connections.receiving.request_heads import HeadError, checked_target
from tests.raw_http import Answer, answers_in, connected, exchange, received

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
ROWS = json.dumps({"rows": [[171.5, 68.2, 33.0]]}).encode()
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: smuggled\r\n\r\n"


def score(*headers: bytes, body: bytes = ROWS, version: bytes = b"1.1") -> bytes:
    """A score of one row, with a length unless the headers say how the body ends."""
    fields = [b"Host: x", b"Content-Type: application/json", *headers]
    if not any(b"ransfer-" in field or b"ontent-Length" in field for field in headers):
        fields.append(b"Content-Length: %d" % len(body))
    line = b"POST /v1/models/people/log_prob HTTP/" + version
    return b"\r\n".join([line, *fields, b"", body])


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join([*(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), end])


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


UPGRADES = {
    "anything": (b"Connection: Upgrade", b"Upgrade: anything"),
    "h2c of Java and curl": (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
    ),
    "websocket": (b"Connection: keep-alive, upgrade", b"Upgrade: websocket"),
    "twice": (b"Upgrade: a", b"Connection: upgrade", b"Upgrade: b"),
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=list(UPGRADES))
@pytest.mark.parametrize("apart", [False, True], ids=["together", "body apart"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_the_body_behind_an_upgrade_is_a_body(server, upgrade, apart, framing):
    if framing == "length":
        request = score(*upgrade)
    else:
        request = score(*upgrade, b"Transfer-Encoding: chunked", body=chunked(ROWS[:9], ROWS[9:]))
    head, _, body = request.partition(b"\r\n\r\n")
    pieces = [head + b"\r\n\r\n", body + LAST] if apart else [request + LAST]
    answers = exchange(server, *pieces, pause_s=0.05 if apart else 0)
    assert statuses(answers) == [200, 200]
    assert len(json.loads(answers[0].body)["log_prob"]) == 1
    assert answers[1].body == b'{"status":"ok"}'


@pytest.mark.parametrize("apart", [False, True], ids=["together", "body apart"])
def test_a_request_inside_the_body_of_an_upgrade_is_not_served(server, apart):
    head = score(*UPGRADES["anything"], b"Content-Length: %d" % len(SMUGGLED), body=b"")
    pieces = [head, SMUGGLED + LAST] if apart else [head + SMUGGLED + LAST]
    answers = exchange(server, *pieces, pause_s=0.05 if apart else 0)
    assert statuses(answers) == [400, 200]
    assert answers[0].slug == "json-syntax"
    assert "smuggled" not in [answer.headers.get("x-request-id") for answer in answers]


def test_an_upgrade_that_is_cut_anywhere_is_the_same(server):
    upgrade = UPGRADES["h2c of Java and curl"]
    both = score(*upgrade) + score(*upgrade, b"Connection: close")
    for position in range(1, len(both)):
        with connected(server) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(both[:position])
            time.sleep(0.001)
            connection.sendall(both[position:])
            answers = answers_in(received(connection))
        assert statuses(answers) == [200, 200], position


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no Host": (b"GET /livez HTTP/1.1\r\n\r\n", 400, "bad-request"),
    "two Hosts": (b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "two Hosts in 1.0": (b"GET /livez HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400, "bad-request"),
    "a Host with a path": (b"GET /livez HTTP/1.1\r\nHost: x/y\r\n\r\n", 400, "bad-request"),
    "a Host with a user": (b"GET /livez HTTP/1.1\r\nHost: u@x\r\n\r\n", 400, "bad-request"),
    "a Host with a space": (b"GET /livez HTTP/1.1\r\nHost: x y\r\n\r\n", 400, "bad-request"),
    "a Host with a list": (b"GET /livez HTTP/1.1\r\nHost: x, y\r\n\r\n", 400, "bad-request"),
    "a Host with a bad port": (b"GET /livez HTTP/1.1\r\nHost: x:a\r\n\r\n", 400, "bad-request"),
    "gzip, chunked": (
        score(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        501,
        "not-implemented",
    ),
    "gzip and chunked": (
        score(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        501,
        "not-implemented",
    ),
    "chunked, gzip": (score(b"Transfer-Encoding: chunked, gzip", body=b""), 400, "bad-request"),
    "gzip alone": (score(b"Transfer-Encoding: gzip", body=b""), 400, "bad-request"),
    "identity": (score(b"Transfer-Encoding: identity", body=b""), 400, "bad-request"),
    "xchunked": (score(b"Transfer-Encoding: xchunked", body=b""), 400, "bad-request"),
    "chunked twice": (
        score(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        "bad-request",
    ),
    "no transfer coding": (score(b"Transfer-Encoding:", body=b""), 400, "bad-request"),
    "vertical tab": (score(b"Transfer-Encoding: \x0bchunked", body=b""), 400, "bad-request"),
    "chunked and a length": (
        score(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        400,
        "bad-request",
    ),
    "a length and chunked": (
        score(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        "bad-request",
    ),
    "chunked in 1.0": (
        score(b"Transfer-Encoding: chunked", body=chunked(ROWS), version=b"1.0"),
        400,
        "bad-request",
    ),
    "two lengths": (
        score(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
        400,
        "bad-request",
    ),
    "two equal lengths": (
        score(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
        400,
        "bad-request",
    ),
    "a list of lengths": (score(b"Content-Length: 3, 3", body=b"abc"), 400, "bad-request"),
    "a signed length": (score(b"Content-Length: +3", body=b"abc"), 400, "bad-request"),
    "a negative length": (score(b"Content-Length: -3", body=b"abc"), 400, "bad-request"),
    "a length with a space": (score(b"Content-Length: 1 3", body=b"abc"), 400, "bad-request"),
    "a length in hexadecimals": (score(b"Content-Length: 0x3", body=b"abc"), 400, "bad-request"),
    "an endless length": (score(b"Content-Length: " + b"9" * 30, body=b""), 400, "bad-request"),
    "an empty length": (score(b"Content-Length:", body=b""), 400, "bad-request"),
    "a folded header": (
        b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        400,
        "bad-request",
    ),
    "a first header with a space": (
        b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
        400,
        "bad-request",
    ),
    "LF for CRLF": (b"GET /livez HTTP/1.1\nHost: x\n\n", 400, "bad-request"),
    "LF between headers": (b"GET /livez HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "bad-request"),
    "CR between headers": (b"GET /livez HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400, "bad-request"),
    "a space before the colon": (b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n", 400, "bad-request"),
    "no header name": (b"GET /livez HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400, "bad-request"),
    "no colon": (b"GET /livez HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400, "bad-request"),
    "NUL in a value": (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400, "bad-request"),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 505, "http-version"),
    "HTTP/0.9 by name": (b"GET /livez HTTP/0.9\r\nHost: x\r\n\r\n", 505, "http-version"),
    "HTTP/1.2": (b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n", 505, "http-version"),
    "HTTP/2.0": (b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http-version"),
    "HTTP/3.0": (b"GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", 505, "http-version"),
    "HTTP/11": (b"GET /livez HTTP/11\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "http/1.1": (b"GET /livez http/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version"),
    "ICE": (b"SOURCE /livez ICE/1.0\r\nHost: x\r\n\r\n", 501, "not-implemented"),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + LIVE, 501, "not-implemented"),
    "CONNECT with a length": (
        b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\nContent-Length: 33\r\n\r\n" + LIVE,
        501,
        "not-implemented",
    ),
    "a method of WebDAV": (b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "not-implemented"),
    "a method in lower case": (b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "another host": (b"GET http://y/livez HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "another port": (b"GET http://x:1/livez HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "a user in the target": (
        b"GET http://u@x/livez HTTP/1.1\r\nHost: u@x\r\n\r\n",
        400,
        "bad-request",
    ),
    "a target of another scheme": (
        b"GET ftp://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        400,
        "bad-request",
    ),
    "a target with a fragment": (b"GET /livez#a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "a relative target": (b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
    "a target with a byte above 127": (
        b"GET /livez\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",
        400,
        "bad-request",
    ),
    "an asterisk without OPTIONS": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"),
}
CHUNKED = b"Transfer-Encoding: chunked"
BAD_CHUNKS = {
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nabc\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a space behind the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a size of 68 bits": b"ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    "LF for CRLF": b"3\nabc\n0\n\n",
    "LF in an extension": b"3;a\nabc\r\n0\r\n\r\n",
    "no end of the data": b"3\r\nabc0\r\n\r\n",
    "more data than the size": b"3\r\nabcd\r\n0\r\n\r\n",
    "a length in a trailer": b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    "an endless extension": b"3;a=%b\r\nabc\r\n0\r\n\r\n" % (b"x" * 1_000_000),
    "extensions that outweigh the data": b"1;abcdefghijklmnop\r\na\r\n" * 50_000 + b"0\r\n\r\n",
    "chunks of one byte": b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n",
}


@pytest.mark.parametrize(("request_", "status", "slug"), REFUSED.values(), ids=list(REFUSED))
def test_what_breaks_a_rule_is_refused_and_nothing_after_it_is_served(
    server, request_, status, slug
):
    answers = exchange(server, request_ + LIVE)
    assert [(answer.status, answer.slug) for answer in answers] == [(status, slug)]
    assert answers[0].headers["connection"] == "close"


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=list(BAD_CHUNKS))
def test_bad_chunks_are_refused_and_nothing_after_them_is_served(server, body):
    answers = exchange(server, score(CHUNKED, body=body) + LIVE)
    assert [(answer.status, answer.slug) for answer in answers] == [(400, "bad-request")]
    assert answers[0].headers["connection"] == "close"


def test_trailers_are_bounded_and_are_no_headers(server):
    many = b"".join(b"A%d: b\r\n" % i for i in range(MAX_HEADERS))
    body = chunked(ROWS, end=b"0\r\n" + many + b"\r\n")
    answers = exchange(server, score(CHUNKED, body=body) + LIVE)
    assert [(answer.status, answer.slug) for answer in answers] == [(431, "limit-headers")]
    few = chunked(ROWS, end=b"0\r\nX-Request-ID: trailed\r\nHost: y\r\n\r\n")
    answers = exchange(server, score(CHUNKED, body=few) + LAST)
    assert statuses(answers) == [200, 200]
    assert answers[0].headers["x-request-id"] != "trailed"


@pytest.mark.parametrize("start", [b"A: ", b"A", b""])
def test_a_head_without_end_is_refused_while_it_comes(server, start):
    head = b"GET /livez" + (b" HTTP/1.1\r\nHost: x\r\n" if start else b"?") + start
    with connected(server) as connection:
        with suppress(ConnectionError):
            connection.sendall(head + b"x" * 5_000_000)
        answers = answers_in(received(connection))
    assert [(answer.status, answer.slug) for answer in answers] == [(431, "limit-headers")]


@pytest.mark.parametrize(
    ("part", "times", "status"),
    [
        ("x&", 4096, 422),
        ("%41", 8192, 422),
        ("x", 60_000, 422),
        ("x&", 4097, 431),
        ("%", 8193, 431),
        ("x&%%", 2049, 431),
    ],
)
def test_a_query_has_no_more_parts_than_the_event_loop_reads_in_passing(
    server, part, times, status
):
    head = f"GET /v1/version?{part * times} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    [answer] = exchange(server, head)
    slug = {422: "unknown-parameter", 431: "limit-headers"}[status]
    assert (answer.status, answer.slug) == (status, slug)


ACCEPTED = {
    "empty lines before": b"\r\n\r\n" + LIVE,
    "an absolute target": b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target in capitals": b"GET HTTP://X:80/livez HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "an empty port": b"GET /livez HTTP/1.1\r\nHost: x:\r\n\r\n",
    "an address of IPv6": b"GET /livez HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "spaces around a value": b"GET /livez HTTP/1.1\r\nHost: \t x \t\r\n\r\n",
    "an extension of a chunk": score(
        CHUNKED, body=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(ROWS), ROWS)
    ),
    "Chunked": score(b"transfer-encoding:CHUNKED", body=chunked(ROWS)),
    "zeros before a size": score(CHUNKED, body=b"0000%x\r\n%b\r\n0\r\n\r\n" % (len(ROWS), ROWS)),
    "a length with spaces around": score(b"Content-Length:  %d \t" % len(ROWS)),
    "Upgrade without Connection": score(b"Upgrade: h2c"),
    "Connection without Upgrade": score(b"Connection: Upgrade"),
}


@pytest.mark.parametrize("request_", ACCEPTED.values(), ids=list(ACCEPTED))
def test_what_keeps_the_rules_is_served_and_so_is_what_follows(server, request_):
    assert statuses(exchange(server, request_ + LIVE + LAST)) == [200, 200, 200]


def test_the_root_may_be_left_out_of_an_absolute_target(server):
    root, given = (
        exchange(server, b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)[0]
        for target in (b"/", b"http://x")
    )
    assert given.status == root.status < 400


def test_options_of_the_server_is_answered(server):
    answers = exchange(server, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
    assert answers[0].status < 500
    assert answers[1].status == 200


def test_http_1_0_needs_no_host_and_ends_after_one_answer(server):
    request = b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert statuses(exchange(server, request + LIVE)) == [200]


def test_nothing_is_served_after_connection_close(server):
    answers = exchange(server, LAST + LIVE)
    assert statuses(answers) == [200]
    assert answers[0].headers["connection"] == "close"


def test_a_refusal_comes_after_the_answers_before_it(server):
    answers = exchange(server, score() + LIVE + score() + b"nonsense\r\n\r\n" + LIVE)
    assert statuses(answers) == [200, 200, 200, 400]
    bad_body = score(CHUNKED, body=b"zz\r\n\r\n")
    answers = exchange(server, score() + LIVE + bad_body + LIVE)
    assert statuses(answers) == [200, 200, 400]


def test_head_is_refused_without_a_body(server):
    answers = exchange(server, b"HEAD /livez HTTP/1.1\r\n\r\n", methods=["HEAD"])
    assert statuses(answers) == [400]


def test_requests_that_wait_on_one_connection_are_bounded(server):
    answers = exchange(server, LIVE * 50_000)
    assert set(statuses(answers)) == {200}
    assert MAX_PIPELINED < len(answers) < 50_000
    assert answers[-1].headers["connection"] == "close"


def test_a_body_is_asked_for_where_the_caller_waits(server):
    head, _, body = score(b"Expect: 100-continue", b"Connection: close").partition(b"\r\n\r\n")
    with connected(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert statuses(answers_in(received(connection))) == [200]


def test_a_body_that_comes_unasked_leaves_the_connection_open(server):
    answers = exchange(server, score(b"Expect: 100-continue") + LAST)
    assert [status for status in statuses(answers) if status != 100] == [200, 200]


def test_a_body_that_is_not_asked_for_ends_the_connection(server):
    """What comes next could be the body or another request."""
    length = b"Content-Length: %d" % len(LIVE)
    head = score(b"Expect: 100-continue", b"Content-Encoding: br", length, body=b"")
    answers = exchange(server, head, LIVE, pause_s=0.1)
    assert statuses(answers) == [415]
    assert answers[0].headers["connection"] == "close"


def test_http_1_0_is_never_asked_for_a_body(server):
    answers = exchange(server, score(b"Expect: 100-continue", version=b"1.0"))
    assert statuses(answers) == [200]


def test_a_silent_rest_of_an_answered_body_gets_no_second_answer(server):
    head = score(b"Content-Encoding: br", b"Content-Length: 1000", body=b"abc")
    with connected(server) as connection, suppress(ConnectionError):
        connection.sendall(head)
        raw = received(connection)
    assert statuses(answers_in(raw)) == [415]


@pytest.mark.parametrize("target", [b"http://%b#", b"http://a/%b#", b"https://%b?#b"])
def test_a_long_url_with_a_fragment_is_refused(target):
    with pytest.raises(HeadError, match="no http or https URL"):
        checked_target(b"GET", "1.1", target % (b"a" * 60_000), [(b"host", b"a")])


@pytest.mark.parametrize("lines", [1, 50])
def test_lists_of_thousands_of_members_are_refused(lines):
    def headers(members):
        value = b"a," * (members // lines)
        return [(b"host", b"a"), *[(b"accept", value)] * lines]

    assert checked_target(b"GET", "1.1", b"/", headers(4000)) == b"/"
    with pytest.raises(HeadError, match="too many members of lists"):
        checked_target(b"GET", "1.1", b"/", headers(5000))
