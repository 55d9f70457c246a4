"""Files of pages."""

import pytest


@pytest.mark.parametrize("path", ["site.css", "page/js/main.js", "docs/swagger-ui.css"])
def test_a_file_is_packed_and_not_sent_again_while_it_is_current(shared_client, path):
    first = shared_client.get(f"/static/{path}")
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-cache")
    again = shared_client.get(f"/static/{path}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = shared_client.get(f"/static/{path}", headers={"Accept-Encoding": "identity"})
    assert plain.content == first.content
    assert ("content-encoding" in first.headers) == (len(plain.content) >= 4096)


@pytest.mark.parametrize("path", ["none.js", "../html.py", "page/../../html.py", "%2e%2e/html.py"])
def test_nothing_else_is_sent(shared_client, path):
    assert shared_client.get(f"/static/{path}").status_code == 404
