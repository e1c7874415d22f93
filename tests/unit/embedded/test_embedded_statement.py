"""What is read from the text of a statement."""

from __future__ import annotations

import pytest

from laion.embedded.statement import (
    find_format,
    find_unsupported,
    first_keyword,
    split_insert,
)


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
