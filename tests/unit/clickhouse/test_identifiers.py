from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.identifiers import (
    quote_identifier,
    quote_string,
    search_table,
    staging_table,
)
from laion.errors import BadIdentifier

INJECTIONS = [
    "",
    "hold; DROP TABLE hold",
    "hold`; DROP TABLE hold; --",
    "`hold`",
    "hold'",
    'hold"',
    "hold\\",
    "hold--",
    "hold/**/",
    "system.tables",
    "hold hold",
    "hold\n",
    "\nhold",
    "hold\0",
    "1hold",
    "hÖld",
    "hold-1",
    "{hold:Identifier}",
    "$hold",
    "x" * 151,
]


@pytest.mark.parametrize("name", ["laion400m", "_hold", "Hold_2", "x" * 150, "select"])
def test_a_plain_name_is_quoted(name: str) -> None:
    assert quote_identifier(name) == f"`{name}`"


@pytest.mark.parametrize("name", INJECTIONS)
def test_anything_else_is_refused_with_a_right_example(name: str) -> None:
    with pytest.raises(BadIdentifier, match="such as 'laion400m'"):
        quote_identifier(name)


@pytest.mark.parametrize(
    "text", ["", "it's", "\\", "\\'", "'; DROP TABLE hold; --", "line\nline", "\\n", "'' \\\\ é 🐈"]
)
def test_a_quoted_string_reads_as_the_text_that_it_was(client: Client, text: str) -> None:
    assert client.query(f"SELECT {quote_string(text)}").result_rows == [(text,)]


def test_tables_that_go_with_a_base_table_are_named_after_it() -> None:
    assert staging_table("hold", 7, "aaaa0001") == "hold_staging_7_aaaa0001"
    assert search_table("hold") == "hold_search"
