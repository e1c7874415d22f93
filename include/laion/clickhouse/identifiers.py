"""Names of ClickHouse objects: checked and quoted here and nowhere else."""

from __future__ import annotations

import re

from laion.errors import BadIdentifier

IDENTIFIER_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,149}"


def quote_identifier(name: str) -> str:
    """Return `name` in backquotes. Raises BadIdentifier for anything but a plain identifier."""
    if re.fullmatch(IDENTIFIER_PATTERN, name) is None:
        raise BadIdentifier(
            f"{name!r} cannot be used as a table name; use letters, digits and underscores, such "
            "as 'laion400m'"
        )
    return f"`{name}`"


def quote_column(name: str) -> str:
    """Return the name of a column in backquotes, whatever characters it has."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_string(text: str) -> str:
    """Return `text` as a ClickHouse string literal, for statements that take no parameters."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def staging_table(table: str, shard: int, attempt: str) -> str:
    """Return the name of the staging table of one attempt."""
    return f"{table}_staging_{shard}_{attempt}"


def search_table(table: str) -> str:
    """Return the name of the search table of a base table."""
    return f"{table}_search"


def vector_suffix(vector: str) -> str:
    """Return how a vector is named in names of tables and indexes, such as image."""
    return vector.removesuffix("_embedding")


def near_view(table: str, vector: str = "") -> str:
    """Return the name of the view that searches by a vector, by default by the first."""
    return f"{table}_near_{vector_suffix(vector)}" if vector else f"{table}_near"
