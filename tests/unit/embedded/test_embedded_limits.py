"""What one statement, however malformed, may take of the time of others."""

from __future__ import annotations

import pytest
import requests

from tests.unit.embedded.conftest import TIMEOUT_S, assert_serves_others_during

MIB = 1 << 20


@pytest.mark.parametrize(
    "unit",
    [b"\\'", b'\\"', b"\\`", b"$a$$a$", b"/* ", b","],
    ids=["quotes", "double quotes", "back quotes", "heredocs", "comments", "commas"],
)
@pytest.mark.parametrize("statement", [b"INSERT INTO t ", b"SELECT "])
def test_a_malformed_statement_holds_nobody_up(embedded, sent, statement, unit):
    text = statement + unit * ((MIB - len(statement) - 1) // len(unit))

    running = sent("POST", embedded.url, data=text, timeout=TIMEOUT_S)

    assert_serves_others_during(embedded, running)
    assert running.result().headers["X-ClickHouse-Exception-Code"] == "62"


def test_tags_that_never_come_again_hold_nobody_up(embedded, sent):
    text = b"INSERT INTO t " + b" ".join(b"$a%d$" % number for number in range(100_000))

    running = sent("POST", embedded.url, data=text, timeout=TIMEOUT_S)

    assert_serves_others_during(embedded, running)
    assert running.result().headers["X-ClickHouse-Exception-Code"] == "62"


def test_many_statements_in_one_are_refused_without_reading_them_all(embedded, http):
    text = b"INSERT INTO t VALUES (1);" + b"SELECT 1;" * 110_000

    response = http.post(embedded.url, text, timeout=TIMEOUT_S)

    assert response.headers["X-ClickHouse-Exception-Code"] == "62"
    assert "Multi-statements" in response.text


def test_an_error_that_quotes_many_blanks_is_sent_at_once(embedded, http):
    text = f"SELECT toUInt8('{' ' * 150_000}x')"

    response = http.post(embedded.url, text, timeout=TIMEOUT_S)

    assert response.headers["X-ClickHouse-Exception-Code"] == "6"


def test_a_statement_that_is_slow_to_parse_holds_up_only_itself(embedded, http, sent):
    aliases = ", ".join(f"1 AS $a{number}$" for number in range(20_000))
    params = {"max_query_size": "0"}

    slow = sent("GET", embedded.url, data=f"INSERT INTO t SELECT {aliases}", params=params)
    answers = [
        requests.post(embedded.url, f"SELECT {n}, 'beside'", auth=http.auth).text for n in range(20)
    ]
    was_first = not slow.done()

    assert answers == [f"{n}\tbeside\n" for n in range(20)]
    assert was_first
    assert slow.result().headers["X-ClickHouse-Exception-Code"] == "164"


LONG = f"SELECT length('{'x' * 300_000}')"


def test_a_statement_is_no_longer_than_the_engine_takes(embedded, http):
    response = http.post(embedded.url, LONG)

    assert response.status_code == 400
    assert "`max_query_size`" in response.text


@pytest.mark.parametrize("where", ["url", "session"])
def test_a_longer_statement_may_be_asked_for(embedded, http, where):
    params = {"session_id": f"long in {where}"}
    if where == "url":
        params["max_query_size"] = "400000"
    if where == "session":
        http.post(embedded.url, "SET max_query_size = 400000", params=params)

    assert http.post(embedded.url, LONG, params=params).text == "300000\n"


@pytest.mark.parametrize(
    ("text", "answer"), [("SELECT \u2018a;b\u2019", "a;b\n"), ("SELECT 1;\u00a0", "1\n")]
)
def test_quotes_and_blanks_beyond_ascii_are_the_engines(embedded, http, text, answer):
    assert http.post(embedded.url, text.encode()).text == answer


def test_a_second_statement_is_refused(embedded, http):
    assert "Multi-statements" in http.post(embedded.url, "SELECT 1; SELECT 2").text
