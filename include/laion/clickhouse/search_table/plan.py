"""What a build of a search table is asked for, what it makes, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from laion.shards import HeldShard
from laion.vectors import Dimensions

FIRST_KIND = "hnsw"
"""The kind of plans that do not name one: those of the releases that knew no other."""


@dataclass(frozen=True)
class IndexOptions:
    """What kind of search table is wanted, and how it keeps vectors.

    `quantization` may be `auto`. `parameters` are the kind's own; it decides on those not given. A
    table has `buckets` partitions, or fewer as long as that gives less than `min_bucket_rows`.
    """

    metric: str = "cosineDistance"
    quantization: str = "bf16"
    kind: str = FIRST_KIND
    parameters: Mapping[str, int] = field(default_factory=dict)
    buckets: int = 5
    min_bucket_rows: int = 10_000

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self)
        return {**facts.pop("parameters"), **facts}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        own = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**own, parameters={n: v for n, v in facts.items() if n not in own})


@dataclass(frozen=True)
class BuildPlan:
    """What a build makes. `root` is the build whose standing queries measure its recall.

    `chosen` says how `auto` chose the kind; empty where it was asked for.
    """

    build_id: str
    root: str
    vectors: Dimensions
    shards_per_bucket: int
    buckets: tuple[int, ...]
    options: IndexOptions
    chosen: str = ""

    @property
    def layout(self) -> tuple[object, ...]:
        """What two builds must share for one to take over buckets of the other."""
        return self.vectors, self.shards_per_bucket, self.options

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "options": self.options.to_json()})

    def as_comment(self, table: str, note: str = "") -> str:
        """Return the comment of what a build made of a base table, after a note to people."""
        facts = {"laion": {"search_of": table, "build": json.loads(self.to_json())}}
        return json.dumps({"note": note, **facts} if note else facts)

    @classmethod
    def from_json(cls, text: str) -> Self:
        facts = json.loads(text)
        # Plans of earlier releases have one dimension for all.
        dimension = facts.pop("dimension", None)
        if dimension is not None:
            facts["vectors"] = dict.fromkeys(facts["vectors"], dimension)
        options = IndexOptions.from_json(facts["options"])
        return cls(**{**facts, "buckets": tuple(facts["buckets"]), "options": options})

    def shards_of(self, bucket: int) -> tuple[int, int]:
        """Return the first and the last shard of a bucket."""
        first = bucket * self.shards_per_bucket
        return first, first + self.shards_per_bucket - 1


class BuildState(StrEnum):
    """What a build has come to. It has the lease until it is OVER."""

    CLAIMED = "claimed"
    WITHDRAWN = "withdrawn"
    PLANNED = "planned"
    ALIVE = "alive"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"
    PUBLISHED = "published"


OVER = [BuildState.WITHDRAWN, BuildState.REJECTED, BuildState.FAILED, BuildState.PUBLISHED]


class BucketStage(StrEnum):
    """How far a bucket of a build is; ATTACHED from an earlier build instead of built."""

    FILLING = "filling"
    FILLED = "filled"
    BUILT = "built"
    ATTACHED = "attached"


@dataclass(frozen=True)
class BucketState:
    """What a bucket of a build is.

    `shards` are those of the base table when it was filled, `progress` is the share of the index
    that is built.
    """

    bucket: int
    state: BucketStage
    made_by: str
    shards: tuple[HeldShard, ...] = ()
    rows: int = 0
    left_out: int = 0
    index_bytes: int = 0
    seconds: float = field(default=0.0, compare=False)
    progress: float = field(default=0.0, compare=False)

    @property
    def is_done(self) -> bool:
        return self.state in (BucketStage.BUILT, BucketStage.ATTACHED)
