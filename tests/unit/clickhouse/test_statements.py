from __future__ import annotations

import re
from pathlib import Path

import pytest

import laion.clickhouse
from laion.clickhouse.identifiers import quote_string
from laion.clickhouse.statements import statement
from laion.errors import BadIdentifier

SQL_FILES = sorted(
    path
    for path in (Path(laion.clickhouse.__file__).parent / "sql").rglob("*.sql")
    if path.parent.name != "users"
)


def test_identifiers_are_quoted() -> None:
    text = statement("replace_partition", table="a", staging="b", literals={"shard": "7"})

    assert text == "ALTER TABLE `a` REPLACE PARTITION 7 FROM `b`"


def test_an_identifier_that_is_none_is_refused() -> None:
    with pytest.raises(BadIdentifier):
        statement("create_staging", table="a", staging="b AS c; DROP TABLE a")


def test_a_literal_goes_in_as_it_is() -> None:
    literals = {"comment": quote_string('{"a": "it\'s"}'), "columns": "v Array(Float32)"}

    text = statement("create_base", table="a", literals=literals)

    assert text.endswith(r"""COMMENT '{"a": "it\'s"}'""")


def test_a_place_that_is_not_filled_is_an_error() -> None:
    with pytest.raises(KeyError, match="staging"):
        statement("create_staging", table="a")


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_every_file_holds_one_statement(path: Path) -> None:
    code = re.sub(r"--.*|'[^']*'", "", path.read_text(encoding="utf-8"))

    assert code.strip()
    assert ";" not in code
