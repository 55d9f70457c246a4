"""Lists of headers: the best of what is offered, and preferences."""

from app.http.accept import best_coding, best_media_type, preferences

OFFERED = ["identity", "gzip", "br"]


def test_a_quote_without_an_end_takes_the_rest_of_a_list():
    assert preferences('respond-early, wait="1, 2", handling="lenient, a, b') == {
        *("respond-early", "wait", "handling")
    }
    assert best_coding('gzip;q=1, identity;q=0;a="b, br', OFFERED) == "gzip"
    assert best_media_type('text/csv;a="b\\",c', ["a/b", "text/csv"]) == "text/csv"
    assert best_coding('\\"' * 30_000, OFFERED) == "identity"
