"""What is read from the text of a statement."""

from __future__ import annotations

import tracemalloc

import pytest

from laion.embedded.statement import (
    find_format,
    find_unsupported,
    first_keyword,
    has_second_statement,
    split_insert,
    tokenize,
)
from tests.patience import patience

MIB = 1 << 20


@pytest.mark.parametrize(
    ("target", "settings", "clause", "fmt", "data"),
    [
        (b"INSERT INTO t ", b"", b"FORMAT CSV\n", "CSV", b"1,2"),
        (b"INSERT INTO t ", b"", b"FORMAT CSV \t\r\n", "CSV", b"\n1"),
        (b"insert into t (a, b) ", b"", b"format Native\n", "Native", b"\x00;"),
        (b"INSERT INTO t ", b"", b"VALUES", "Values", b" (1)"),
        (b"INSERT INTO t(a)", b"", b"VALUES", "Values", b"(1)"),
        (b"INSERT INTO format ", b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO values.format ", b"", b"VALUES", "Values", b" (1)"),
        (b"INSERT INTO db.`a FORMAT b` ", b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b'INSERT INTO t (`values`, "format", format) ', b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b"/* VALUES */ INSERT -- FORMAT X\n INTO TABLE t ", b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO t ", b"SETTINGS a='FORMAT X', b=1 ", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO FUNCTION file('VALUES', 'CSV') ", b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO t ", b"", b"FORMAT JSONEachRow ", "JSONEachRow", b'{"a": "\'"}'),
        (b"INSERT INTO t ", b"", b"FORMAT Parquet", "Parquet", b""),
        (b"INSERT /* /* */ VALUES */ INTO t ", b"", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO t ", b"SETTINGS a = $$ VALUES $$ ", b"FORMAT TSV\n", "TSV", b"x"),
        (b"INSERT INTO t ", b"SETTINGS a = $FORMAT, b = $a$ ", b"FORMAT TSV\n", "TSV", b"x"),
    ],
)
def test_an_insert_is_split_from_its_data(target, settings, clause, fmt, data):
    text = target + settings + clause + data

    found = split_insert(text)

    assert found is not None
    assert (found.target, found.settings, found.format) == (target, settings, fmt)
    assert text[found.data_start :] == data


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
        b"INSERT INTO t (SELECT * FROM values('a Int8', 1))",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"INSERT INTO t (a)",
        b"WITH 1 AS x INSERT INTO t SELECT x",
        b"EXPLAIN INSERT INTO t VALUES (1)",
        b"INSERT INTO t ' VALUES (1)",
        b"INSERT INTO t /* VALUES (1)",
    ],
)
def test_a_statement_without_data_is_not_split(text):
    assert split_insert(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 1\nformat\tNative;", "Native"),
        (b"SELECT 1 FORMAT JSON SETTINGS a = 1, log_comment = 'FORMAT X'; -- FORMAT Y", "JSON"),
        (b"SELECT 1 SETTINGS max_threads = 1 FORMAT JSON /* FORMAT X */;;", "JSON"),
        (b"SELECT 'FORMAT CSV'", None),
        (b"SELECT 'it''s \\' FORMAT CSV'", None),
        (b"SELECT $a$ ' FORMAT CSV $a$ FORMAT TSV", "TSV"),
        (b"SELECT `FORMAT` FROM t", None),
        (b"SELECT format FROM t", None),
        (b"SELECT format('{}', 'a') AS format, 1 FROM t", None),
        (b"SELECT formatRow('CSV', 1) FORMAT RowBinary", "RowBinary"),
        (b"SELECT * FROM (SELECT 1 AS x) # FORMAT X\nFORMAT CSV", "CSV"),
        (b"SHOW TABLES FORMAT TSVRaw", "TSVRaw"),
        (b"SELECT '\xff' FORMAT CSV", "CSV"),
        (b"SELECT 1 AS $a$ FORMAT CSV", "CSV"),
        (b"SELECT 1 AS $FORMAT FORMAT CSV", "CSV"),
        (b"SELECT $$FORMAT TSV$$, 1 FORMAT CSV", "CSV"),
        (b"SELECT 1 /* a /* b */ FORMAT TSV */", None),
        (b"SELECT 'it FORMAT CSV", None),
        (b"FORMAT CSV", None),
    ],
)
def test_the_format_clause_of_a_query_is_found(text, expected):
    assert find_format(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1 INTO OUTFILE 'x'", "INTO OUTFILE"),
        (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", "FROM INFILE"),
        (b"INSERT INTO t SELECT * FROM input ('a Int8') FORMAT CSV", "INSERT … FROM input()"),
        (b"SELECT ' INTO OUTFILE ', outfile, input FROM infile_list -- FROM INFILE", None),
        (b"INSERT INTO input (a) SELECT 1", None),
    ],
)
def test_what_only_a_server_or_a_client_program_does_is_found(text, expected):
    assert find_unsupported(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"-- SET\n ( (select 1))", b"SELECT"),
        (b"/* unfinished", b""),
        (b"USE x", b"USE"),
        (b"'text'", b""),
    ],
)
def test_the_first_keyword_is_found(text, expected):
    assert first_keyword(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1", False),
        (b"SELECT 1; ;\n", False),
        (b"; SELECT 1; -- SELECT 2", False),
        (b"SELECT ';', `;`, $a$;$a$ /* ; */, 1", False),
        (b"SELECT 1; SELECT 2", True),
        (b"INSERT INTO t VALUES (1);(2)", True),
        (b"SELECT 1; 'it", True),
    ],
)
def test_a_second_statement_is_found(text, expected):
    assert has_second_statement(text) == expected


REPEATED = {
    "quotes after backslashes": b"\\'",
    "double quotes after backslashes": b'\\"',
    "back quotes after backslashes": b"\\`",
    "backslashes": b"\\",
    "quotes": b"''' ",
    "comments that open": b"/* ",
    "comments that open and close": b"/*/",
    "heredocs": b"$a$$a$",
    "dollars": b"$a",
    "brackets": b"([{",
    "a mixture": b"$a$'\\\"/*`",
}


@pytest.mark.parametrize("unit", REPEATED.values(), ids=REPEATED)
def test_a_text_that_repeats_itself_is_taken_apart_in_linear_time(unit):
    with patience():
        for token in tokenize(unit * (MIB // len(unit))):
            assert token.end > token.start


def test_tags_that_never_come_again_are_taken_apart_in_linear_time():
    text = b" ".join(b"$a%d$" % number for number in range(MIB // 9))

    with patience():
        assert {token.kind for token in tokenize(text)} == {"word"}


@pytest.mark.parametrize("find", [find_format, find_unsupported, has_second_statement])
def test_the_tokens_of_a_long_text_are_not_kept(find):
    text = b"SELECT " + b"1," * 30_000 + b"1"
    tracemalloc.start()
    try:
        find(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10 * len(text)
