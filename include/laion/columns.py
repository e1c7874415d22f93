"""The columns of a base table that metadata files fill: the one list of them.

Reading files, creating and migrating tables, verifying, searching and the pages follow it. To add a
column, add it to `COLUMNS`, with a `since` higher than any before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ValueType:
    """What a column holds.

    `arrow` is the alias of its type in Parquet and Arrow, `missing` what a null or absent value
    reads as, and `is_missing` that question in SQL, of `{}`. `takes` matches the ClickHouse types
    that hold every value of it.
    """

    clickhouse: str
    arrow: str
    missing: str | int | float
    is_missing: str
    takes: str


TEXT = ValueType("String", "large_string", "", "empty({})", r"String|Enum(?:8|16)\(.*\)")
COUNT = ValueType("UInt32", "uint32", 0, "{} = 0", r"U?Int64|UInt32")
NUMBER = ValueType("Float32", "float", math.nan, "isNaN({})", r"Float(?:32|64)")


@dataclass(frozen=True)
class Filter:
    """How a search may narrow by a column; `parameter` is its name in SQL, API and form.

    A column of text is compared with several values, or `contains` one anywhere, in upper or lower
    case; a number is compared with its least. `label` stands beside the field of the form, which
    offers `choices`, as (value, text), or checks a number's bounds.
    """

    parameter: str
    label: str
    choices: tuple[tuple[str, str], ...] = ()
    least: float = 0
    most: float | None = None
    step: float = 1
    contains: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the base table, named as in LAION-400M's metadata.

    `aliases` are the names, in lower case, that other tools give it; upper and lower case never
    matter. Search results have it if `is_shown`. `since` is the version of the table's format that
    brought it: older tables get it, empty, when they are next loaded into.
    """

    name: str
    type: ValueType
    aliases: tuple[str, ...] = ()
    filter: Filter | None = None
    is_shown: bool = False
    since: int = 1

    @property
    def condition(self) -> str:
        """The SQL condition of its filter, with a parameter. Unknown numbers (NaN) pass."""
        assert self.filter is not None
        name, is_list = self.filter.parameter, self.type is TEXT and not self.filter.contains
        kind = self.type.clickhouse
        return self.compared_with(f"{{{name}:{f'Array({kind})' if is_list else kind}}}")

    def compared_with(self, value: str) -> str:
        """Return the condition of its filter for a value, or an array of values, as SQL."""
        assert self.filter is not None
        if self.filter.contains:
            return f"positionCaseInsensitiveUTF8({self.name}, {value}) > 0"
        if self.type is TEXT:
            # An owner may have made an Enum of it.
            return f"has({value}, toString({self.name}))"
        return f"NOT {self.name} < {value}"


NSFW = (("", "any"), ("UNLIKELY", "unlikely"), ("UNLIKELY,UNSURE", "unlikely or unsure"))

COLUMNS = (
    Column("url", TEXT, is_shown=True),
    # img2dataset calls it TEXT.
    Column(
        "caption",
        TEXT,
        aliases=("text",),
        filter=Filter("caption_has", "Caption has", contains=True),
        is_shown=True,
    ),
    Column("NSFW", TEXT, filter=Filter("nsfw", "NSFW", (*NSFW, ("NSFW", "NSFW"))), is_shown=True),
    Column(
        "similarity",
        NUMBER,
        filter=Filter("min_similarity", "Similarity ≥", least=-1, most=1, step=0.01),
        is_shown=True,
    ),
    Column("LICENSE", TEXT, filter=Filter("licenses", "License"), is_shown=True),
    Column("width", COUNT, filter=Filter("min_width", "Width ≥"), is_shown=True),
    Column("height", COUNT, filter=Filter("min_height", "Height ≥"), is_shown=True),
    Column("original_width", COUNT),
    Column("original_height", COUNT),
    Column("key", TEXT),
)
"""In the order in which they are shown and stored."""

NAMES = tuple(column.name for column in COLUMNS)
SHOWN = tuple(column for column in COLUMNS if column.is_shown)
FILTERED = tuple(column for column in COLUMNS if column.filter)
