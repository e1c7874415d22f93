"""What passes between the tasks of one shard, and how people name shards.

Every record carries its own shard number and attempt, is small, and survives JSON: mapped
task instances must never be told apart by their position in a list.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Self

from laion.errors import BadShards
from laion.vectors import Dimensions, Vector, clip_vectors

METADATA = "metadata"
"""The role of a shard's metadata file; its other files have the names of their vectors."""

MAX_SHARD = 65_535
"""`shard` is a UInt16 column."""

ROWS_PER_SHARD_LIMIT = 100_000_000
"""`id = shard * ROWS_PER_SHARD_LIMIT + row`, so a shard has fewer rows than this."""

_NUMBERS = r"[0-9]{1,5}(-[0-9]{1,5})?(\s*,\s*[0-9]{1,5}(-[0-9]{1,5})?)*"
SHARD_NUMBERS_PATTERN = rf"^({_NUMBERS})?$"
SHARDS_PATTERN = rf"^(all|missing|failed|{_NUMBERS})?$"
QUOTED = 80
"""Characters of an expression that a message repeats."""
SHARDS_HELP = "such as '0', '0-9,12', 'all', 'missing' or 'failed'"


def parse_shards(expression: str) -> list[int]:
    """Return the sorted shard numbers that `"0-9,12"` names, each once.

    The words `all`, `missing` and `failed` depend on a dataset or on the ledger and are not
    resolved here. Raises BadShards.
    """
    numbers: list[int] = []
    unnamed = 0
    for first, last in sorted(_read_range(part, expression) for part in expression.split(",")):
        # What an earlier range has named is not counted through again, however often it is named.
        numbers.extend(range(max(first, unnamed), last + 1))
        unnamed = max(unnamed, last + 1)
    return numbers


def _read_range(part: str, expression: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", part)
    if match is None:
        bad, whole = _shown(part.strip()), _shown(expression)
        raise BadShards(f"shards: cannot read {bad!r} in {whole!r}; {SHARDS_HELP}")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if last < first:
        raise BadShards(f"shards: {part.strip()!r} ends before it starts; write {last}-{first}")
    if last > MAX_SHARD:
        raise BadShards(f"shards: {last} is too large; shards are numbered 0 to {MAX_SHARD}")
    return first, last


def _shown(text: str) -> str:
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def format_shards(numbers: list[int]) -> str:
    """Return the shortest expression that `parse_shards` reads as `numbers`."""
    parts: list[str] = []
    ordered = sorted(set(numbers))
    start = 0
    for i, number in enumerate(ordered):
        if i + 1 < len(ordered) and ordered[i + 1] == number + 1:
            continue
        parts.append(str(number) if i == start else f"{ordered[start]}-{number}")
        start = i + 1
    return ",".join(parts)


def shard_label(number: int) -> str:
    """Return how a shard is shown to people: `shard 00042`."""
    return f"shard {number:05d}"


@dataclass(frozen=True)
class _Record:
    """A frozen dataclass of JSON values."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)


@dataclass(frozen=True)
class ShardSpec(_Record):
    """A shard as planned: where it comes from, where it goes, what is known beforehand.

    `urls` are those of each role, one per mirror, the best first. `columns` names the columns of
    the metadata file that have another name than the base table's, `required` are those that it
    must have. `sha256` has the known digests by role.
    """

    dataset: str
    table: str
    shard: int
    urls: dict[str, list[str]]
    rows: int | None = None
    vectors: list[Vector] = field(default_factory=lambda: list(clip_vectors()))
    columns: dict[str, str] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return shard_label(self.shard)

    @property
    def inside(self) -> dict[str, str]:
        """The vectors that lie in the metadata file, and their columns there."""
        return {vector.name: vector.column for vector in self.vectors if vector.column}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        facts = dict(value)
        # A run that an earlier release planned, and whose tasks are cleared now, names its vectors.
        dimension, columns = facts.pop("dimension", None), facts["columns"]
        vectors = [
            Vector(vector, dimension, column=columns.get(vector, ""))
            if isinstance(vector, str)
            else Vector(**vector)
            for vector in facts["vectors"]
        ]
        return cls(**{**facts, "vectors": vectors})


@dataclass(frozen=True)
class ShardFiles(_Record):
    """The files of a shard by role, as local paths or `s3://` URIs; sizes in bytes.

    `staged` is False when the files are the source's own and must not be touched. `origins` tells
    what each file is a copy of: its `url`, `size`, `etag` and, unless read in place, `sha256`.
    """

    spec: ShardSpec
    attempt: str
    paths: dict[str, str]
    sizes: dict[str, int]
    staged: bool
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{**value, "spec": ShardSpec.from_json(value["spec"])})


class HeldShard(NamedTuple):
    """A shard as the base table holds it: the attempt that was published, and its rows."""

    shard: int
    attempt: str
    rows: int


class Alignment(StrEnum):
    """Whether images, texts and metadata of a shard belong together row by row.

    UNKNOWN: too few similarities, or all alike. A shard that is MISALIGNED was accepted.
    """

    ALIGNED = "aligned"
    MISALIGNED = "misaligned"
    UNCLEAR = "unclear"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ShardParquet(_Record):
    """The one Parquet file of a shard; `path` is a local path or an `s3://` URI.

    `spec` has the dimension of every vector.

    `rows_of` counts the rows of each source file, `bad_vectors` the vectors that are zero or
    not finite, `norms_off` those whose length differs from 1 by more than the tolerance.
    """

    spec: ShardSpec
    attempt: str
    path: str
    rows: int
    size: int
    rows_of: dict[str, int]
    bad_vectors: int
    norms_off: int
    alignment: Alignment

    @property
    def dimensions(self) -> Dimensions:
        """Its vectors in the order of the table's columns, which their hash depends on.

        The order is that of a list: a database may sort the keys of JSON.
        """
        return {vector.name: vector.length for vector in self.spec.vectors}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        spec, alignment = ShardSpec.from_json(value["spec"]), Alignment(value["alignment"])
        facts = {**value, "spec": spec, "alignment": alignment}
        # Earlier releases had it here.
        facts.pop("dimension", None)
        return cls(**facts)


@dataclass(frozen=True)
class StagedShard(_Record):
    """A shard in its staging table, not yet visible to readers."""

    parquet: ShardParquet
    staging_table: str
    rows_written: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**{**value, "parquet": ShardParquet.from_json(value["parquet"])})
