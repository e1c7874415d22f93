"""Kinds of URLs, and what of them may be shown."""

from __future__ import annotations

import pytest

from laion.urls import hide_credentials, join_url, url_scheme


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/x", "https://***@host/x"),
        ("https://me@host:80/x", "https://***@host:80/x"),
        ("https://me:p@ss@host/x", "https://***@host/x"),
        ("https://host/x@y", "https://host/x@y"),
        ("file:///data/a@b", "file:///data/a@b"),
        ("http://a:b@h1, http://c:d@h2/x", "http://***@h1, http://***@h2/x"),
        ("http://a:b@h1,http://c:d@h2", "http://***@h1,http://***@h2"),
        ("cannot read 'http://a:b@h/x'", "cannot read 'http://***@h/x'"),
        ("https://host/x?sig=abc&token=def", "https://host/x?***"),
        ("https://host/x?token=abc is busy", "https://host/x?*** is busy"),
        ("'https://host/x?a=b', 'y'", "'https://host/x?***', 'y'"),
        ("http://h1/?a=b,http://h2/?c=d", "http://h1/?***,http://h2/?***"),
        ("https://host/x?sig=abc;;;;;;", "https://host/x?***;;"),
        ("Max retries exceeded with url: /x?sig=abc", "Max retries exceeded with url: /x?***"),
        ("is the URL right and the host up? a=b", "is the URL right and the host up? a=b"),
    ],
)
def test_user_password_and_query_are_hidden_wherever_a_url_is_shown(text: str, shown: str) -> None:
    assert hide_credentials(text) == shown


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://host/d", "https://host/d/a.npy"),
        ("https://host/d/", "https://host/d/a.npy"),
        ("https://host", "https://host/a.npy"),
        ("https://host/d?sig=x", "https://host/d/a.npy?sig=x"),
        ("file:///data", "file:///data/a.npy"),
        ("s3://bucket/p", "s3://bucket/p/a.npy"),
    ],
)
def test_a_path_goes_below_the_base_and_before_its_query(base: str, url: str) -> None:
    assert join_url(base, "a.npy") == url


@pytest.mark.parametrize(
    ("url", "scheme"), [("HTTPS://host", "https"), ("/data", ""), ("https://[half", "")]
)
def test_a_scheme_is_lower_case_and_empty_for_what_is_no_url(url: str, scheme: str) -> None:
    assert url_scheme(url) == scheme


def test_a_bracket_inside_a_signature_does_not_end_what_is_hidden() -> None:
    text = "cannot fetch (https://host/a?signature=ab)cdef), or https://host/b?key=(x)y: refused"

    assert hide_credentials(text) == (
        "cannot fetch (https://host/a?***), or https://host/b?***: refused"
    )
