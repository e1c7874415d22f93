"""Which build of a search table is in use: what the comments of its views and its table say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.identifiers import near_view, search_table
from laion.clickhouse.search_table.plan import FIRST_KIND, BuildPlan
from laion.errors import TableGone, TableMismatch

Result = TypeVar("Result")


@dataclass(frozen=True)
class InUse:
    """What a base table is searched by: a build, and by name the views and the builds of these."""

    plan: BuildPlan | None
    views: Mapping[str, BuildPlan]

    @property
    def plans(self) -> list[BuildPlan]:
        """All builds that are searched; more than one while another is being put in place."""
        return [*self.views.values(), *([self.plan] if self.plan else [])]


def read_state(client: Client, table: str) -> InUse:
    """Return what a base table is searched by.

    The view of the first vector says so. A table `<table>_search` is of the first kind: it is put
    in place before its views, and releases that knew no other kind made no views.
    Raises TableMismatch when such a table was not made by this package.
    """
    comments = _read_comments(client, table)
    views = _views(table, comments)
    plan = views.get(near_view(table))
    if plan is None or plan.options.kind == FIRST_KIND:
        name = search_table(table)
        plan = plan_of(name, comments[name]) if name in comments else None
    return InUse(plan, views)


def read_in_use(client: Client, table: str) -> BuildPlan | None:
    """Return what a base table is searched by; None when there is nothing. Raises TableMismatch."""
    return read_state(client, table).plan


def is_own_search_table(client: Client, table: str) -> bool:
    """Return whether there is a table `<table>_search` that this package made of this table."""
    name = search_table(table)
    try:
        comment = _read_comments(client, table).get(name)
        return comment is not None and bool(plan_of(name, comment))
    except TableMismatch:
        return False


def plan_of(name: str, comment: str) -> BuildPlan:
    """Return the plan in a search table's comment. Raises TableMismatch when there is none."""
    try:
        return BuildPlan.from_json(json.dumps(json.loads(comment)["laion"]["build"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TableMismatch(
            f"table {name!r} exists and was not made by this package; it is left alone. Rename "
            "it, or choose another name with the param `table`."
        ) from error


def again_if_replaced(ask: Callable[[], Result]) -> Result:
    """Ask again, once, where a table was gone: another build was put in place in that moment."""
    try:
        return ask()
    except TableGone:
        return ask()


def check_view_names(client: Client, table: str, vectors: Iterable[str]) -> None:
    """Raise TableMismatch when somebody else's table or view has a name that a view needs."""
    comments = _read_comments(client, table)
    own = _views(table, comments)
    for view in view_names(table, vectors).values():
        if view in comments and view not in own:
            raise TableMismatch(
                f"{view!r} exists and was not made by this package; it is left alone. Rename it, "
                "or choose another name with the param `table`."
            )


def view_names(table: str, vectors: Iterable[str]) -> dict[str, str]:
    """Return the names of the views that search a base table, by vector."""
    return {
        vector: near_view(table, vector if position else "")
        for position, vector in enumerate(vectors)
    }


def _read_comments(client: Client, table: str) -> dict[str, str]:
    with typed_errors(f"read what the search table of {table} was built by"):
        rows = read_rows(client, "in_use", search=search_table(table), near=near_view(table))
    return {row["name"]: row["comment"] for row in rows}


def _views(table: str, comments: dict[str, str]) -> dict[str, BuildPlan]:
    """Leave out what is not a view of this table: others may have such names."""
    found = {}
    for name, comment in comments.items():
        with suppress(ValueError, KeyError, TypeError):
            if name != search_table(table) and json.loads(comment)["laion"]["search_of"] == table:
                found[name] = plan_of(name, comment)
    return found
