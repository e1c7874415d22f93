"""The views by which a base table is searched: `SELECT * FROM <table>_near(q = …, k = 10)`.

One for each vector, of any kind of search table. Its parameters but `q` may be NULL, or left out
with ClickHouse 26.3 and later. Replacing the views puts another build in place.
"""

from __future__ import annotations

from collections.abc import Mapping

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import quote_column, quote_string
from laion.clickhouse.search_table.filters import view_conditions
from laion.clickhouse.search_table.in_use import view_names
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SearchProfile
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement

DEFAULT_LIMIT = 10


def publish_views(
    client: Client, table: str, plan: BuildPlan, profiles: Mapping[str, SearchProfile]
) -> None:
    """Make each view search a build, which has been put in place. Each is of one build always.

    A view shows the columns of the base table but its vectors, and but one named distance. That of
    the first vector, which says what is in use, is the last to be replaced.
    """
    kind = kind_of(plan.options)
    place = kind.place(table, plan, in_use=True)
    own = ", ".join(map(quote_column, ("id", "distance", *plan.vectors)))
    # Whatever columns the table has when it is searched.
    columns = [f"* EXCEPT ({own})"]
    for vector, view in reversed(view_names(table, plan.vectors).items()):
        question = Question(
            vector,
            "{q:Array(Float32)}",
            columns,
            view_conditions(lambda column, test: kind.condition(table, column, test)),
            limit=f"ifNull({{k:Nullable(UInt32)}}, {DEFAULT_LIMIT})",
            distinct="ifNull({distinct:Nullable(Bool)}, false)",
        )
        search = kind.search(table, place, plan, question, profiles[vector])
        comment = quote_string(plan.as_comment(table, kind.view_note))
        literals = {"search": search, "comment": comment}
        client.command(statement("create_view", view=view, literals=literals))
