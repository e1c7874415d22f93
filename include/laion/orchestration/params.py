"""The form of `laion_ingest` in the UI, and what a run makes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

from airflow.sdk import Param

from laion.clickhouse.search_table.kinds import (
    AUTO,
    MOST_LISTS,
    MOST_LISTS_OF_AUTO,
    offered_kinds,
    offered_metrics,
    offered_quantizations,
    summarize_auto_quantization,
    summarize_kinds,
)
from laion.clickhouse.search_table.plan import IndexOptions
from laion.datasets import check_profiles, profile_names
from laion.errors import UnknownParam
from laion.shards import SHARD_NUMBERS_PATTERN, SHARDS_PATTERN

TABLE_PATTERN = r"^([A-Za-z_][A-Za-z0-9_]{0,69})?$"
"""Shorter than an identifier may be: staging tables are named after it."""
SOURCE_PATTERN = r"^(\s*(https?|file|s3)://[^\s,]+\s*(,\s*(https?|file|s3)://[^\s,]+\s*)*)?$"


def ingest_params() -> dict[str, Param]:
    """Return the params of `laion_ingest`, in the order of the form.

    The form takes an empty field for missing unless null is allowed; over the API the empty
    string does as well. Raises BadProfile, so that a profile that cannot be read is told in the UI.
    """
    check_profiles()
    return {
        "dataset": Param(
            "sample",
            type="string",
            enum=profile_names(),
            title="Dataset",
            description="The profile that says where the files are and what is in them.",
        ),
        "shards": Param(
            "all",
            type=["null", "string"],
            pattern=SHARDS_PATTERN,
            title="Shards",
            description="Numbers and ranges such as '0-9,12'; or 'all'; or, from the ledger, "
            "'missing' or 'failed'; or nothing, for only the index and the "
            "functions.",
            examples=["0", "0-9,12", "all", "missing", "failed"],
        ),
        "source": Param(
            None,
            type=["null", "string"],
            pattern=SOURCE_PATTERN,
            title="Source",
            description="Base URL of the files, or several separated by commas: 'https://…', "
            "'s3://…' or 'file:///…'. Empty: the dataset's own.",
            examples=["https://mirror.example/laion", "file:///data/laion"],
        ),
        "table": Param(
            None,
            type=["null", "string"],
            pattern=TABLE_PATTERN,
            title="Table",
            description="Name of the base table. Empty: the dataset's name.",
        ),
        "element_type": Param(
            "Float32",
            type="string",
            enum=["Float32", "BFloat16"],
            title="Stored vectors",
            description="How a new base table holds its vectors: 'Float32' exactly, 'BFloat16' in "
            "half the space, rounded. A table that exists keeps its type.",
        ),
        "build_index": Param(
            True,
            type="boolean",
            title="Build the search table",
            description="Build what searches by '<table>_near' when all shards are in.",
        ),
        "index_kind": Param(
            AUTO,
            type="string",
            enum=offered_kinds(),
            title="Kind of search table",
            description=f"{summarize_kinds()} 'auto' chooses by rows, memory, disk and cores, and "
            "its log says why.",
        ),
        "index_metric": Param(
            "cosineDistance",
            type="string",
            enum=offered_metrics(),
            title="Index metric",
            description="The distance that the index answers; searches must use the same.",
        ),
        "index_quantization": Param(
            "auto",
            type="string",
            enum=offered_quantizations(),
            title="Index quantization",
            description="How vectors are kept inside the index. 'auto' is "
            f"{summarize_auto_quantization()}.",
        ),
        "index_lists": Param(
            0,
            type="integer",
            minimum=0,
            maximum=MOST_LISTS,
            title="Inverted lists",
            description="How many a search table of kind 'ivf' has of each vector. 0: about four "
            f"times the square root of the rows, {MOST_LISTS_OF_AUTO:,} at most.",
        ),
        "rebuild_index": Param(
            False,
            type="boolean",
            title="Rebuild the search table",
            description="Build all of it, and train inverted lists again. Else partitions whose "
            "shards have not changed come from the one in use.",
        ),
        "recall_target": Param(
            0.95,
            type="number",
            minimum=0,
            maximum=1,
            title="Recall target",
            description="Share of the ten nearest rows that a search by the index must find; below "
            "it, the new search table is not put in place.",
        ),
        "deploy_udfs": Param(
            True,
            type="boolean",
            title="Deploy the SQL functions",
            description="Make encode_text(…) and encode_image(…) work in ClickHouse, where the "
            "installation is set up for it.",
        ),
        "tolerate_failed_shards": Param(
            0,
            type="integer",
            minimum=0,
            title="Tolerate failed shards",
            description="The run succeeds with up to this many planned shards missing.",
        ),
        "max_bad_vectors": Param(
            0,
            type="integer",
            minimum=0,
            title="Bad vectors per shard",
            description="Zero or non-finite vectors that a shard may have before it fails.",
        ),
        "strict_alignment": Param(
            False,
            type="boolean",
            title="Strict alignment",
            description="Fail, rather than warn, when images, texts and metadata do not seem to "
            "belong together row by row.",
        ),
        "accept_misaligned": Param(
            False,
            type="boolean",
            title="Accept misaligned shards",
            description="Load shards whose metadata fit the vectors clearly better when moved by "
            "some rows; otherwise they fail.",
        ),
        "keep_parquet": Param(
            False,
            type="boolean",
            title="Keep Parquet files",
            description="Keep each shard's Parquet file below 'parquet/' of the staging area.",
        ),
    }


def backfill_params() -> dict[str, Param]:
    """Return the params of `laion_backfill`, in the order of the form."""
    ingest = ingest_params()
    return {
        "dataset": ingest["dataset"],
        "table": ingest["table"],
        "which": Param(
            "all",
            type="string",
            # `laion.backfill.WHICH`, whose module is too heavy to be loaded where DAGs are parsed.
            enum=["failed", "missing", "mismatched", "stale", "all"],
            title="Which shards",
            description="What is wrong with the shards to load again; 'all' is any of these.",
        ),
        "shards": Param(
            None,
            type=["null", "string"],
            pattern=SHARD_NUMBERS_PATTERN,
            title="Shards by number",
            description="Numbers and ranges such as '3,7-9', loaded again whatever their state; "
            "then 'Which shards' does not count.",
            examples=["3", "3,7-9"],
        ),
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Only say, in the log of find_shards, what would be done and why.",
        ),
        "max_shards": Param(
            50,
            type="integer",
            minimum=1,
            title="At most",
            description="Load at most so many shards; the others are left for another run.",
        ),
        "quiet_minutes": Param(
            30,
            type="integer",
            minimum=0,
            title="Quiet minutes",
            description="A run that has not ended and wrote nothing to the ledger for so long is "
            "taken for dead, as after a worker was killed.",
        ),
        "source": Param(
            None,
            type=["null", "string"],
            pattern=SOURCE_PATTERN,
            title="Source",
            description="Another source than that of the last run; needed when that had a "
            "password, which is not kept.",
        ),
    }


def monitor_params() -> dict[str, Param]:
    """Return the params of `laion_monitor`."""
    return {
        "table": Param(
            None,
            type=["null", "string"],
            pattern=TABLE_PATTERN,
            title="Table",
            description="The base table to check. Empty: all that were ever loaded.",
        )
    }


def check_conf(conf: Mapping[str, Any] | None, params: Collection[str]) -> None:
    """Raise UnknownParam when a run was triggered with a key that is not one of `params`.

    Airflow ignores such a key, so a run for `{"shard": "0"}` would load every shard.
    """
    unknown = sorted(set(conf or {}) - set(params))
    if not unknown:
        return
    by_lower = {name.lower(): name for name in params}
    guesses = []
    for name in unknown:
        close = get_close_matches(name.lower(), by_lower, n=1)
        guesses.append(f"{name!r}" + (f" (did you mean {by_lower[close[0]]!r}?)" if close else ""))
    raise UnknownParam(
        f"the run was triggered with params that do not exist: {', '.join(guesses)}. Nothing was "
        f"done; trigger it again. Its params are {', '.join(params)}"
    )


@dataclass(frozen=True)
class IngestRequest:
    """The params of one run, as typed values."""

    dataset: str
    shards: str
    source: str
    table: str
    element_type: str
    build_index: bool
    index_kind: str
    index_metric: str
    index_quantization: str
    index_lists: int
    rebuild_index: bool
    recall_target: float
    deploy_udfs: bool
    tolerate_failed_shards: int
    max_bad_vectors: int
    strict_alignment: bool
    accept_misaligned: bool
    keep_parquet: bool

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Read a run's params, which Airflow has checked against `ingest_params`."""
        values = {name: params[name] for name in cls.__dataclass_fields__}
        texts = {name: (values[name] or "").strip() for name in ("shards", "source", "table")}
        table = texts["table"] or values["dataset"]
        return cls(**{**values, **texts, "table": table})

    def index_options(self, buckets: int) -> IndexOptions | None:
        """Return what the search table is to be, in at most so many partitions; None for none."""
        if not self.build_index:
            return None
        return IndexOptions(
            metric=self.index_metric,
            quantization=self.index_quantization,
            kind=self.index_kind,
            parameters={"lists": self.index_lists} if self.index_lists else {},
            buckets=buckets,
        )
