"""How thoroughly each vector of a build is searched, as its gate has found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SearchProfile
from laion.clickhouse.search_table.plan import BuildPlan


def read_profile(client: Client, table: str, column: str, plan: BuildPlan) -> SearchProfile:
    """Return how a column of a build is searched, as its gate has found."""
    with typed_errors(f"read how {column} of {table} is searched"):
        rows = read_rows(
            client, "search_profile", table=table, build_id=plan.build_id, column=column
        )
    kind = kind_of(plan.options)
    return kind.read_profile(read_knobs(rows[0]) if rows else {})


def read_knobs(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile that was stored as columns; earlier releases have filled these two only."""
    knobs: dict[str, Any] = (
        json.loads(row["profile"])
        if row.get("profile")
        else {"ef": row["ef"], "multiplier": row["multiplier"]}
    )
    return knobs


def stored_knobs(profile: SearchProfile) -> dict[str, Any]:
    """Return a profile as columns: whole, and what the table has a column for."""
    knobs = profile.to_json()
    own = {name: value for name, value in knobs.items() if name in ("ef", "multiplier")}
    return {"profile": json.dumps(knobs), **own}
