"""The SQL files of this package, one statement each.

`$name` in a file stands for an identifier or for text quoted by the caller; values are bound by
the client as `{name:Type}` parameters.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template

from laion.clickhouse.identifiers import quote_identifier
from laion.settings import get_settings


@cache
def _read(name: str) -> Template:
    return Template((files(__package__) / "sql" / f"{name}.sql").read_text(encoding="utf-8"))


def statement(name: str, /, *, literals: dict[str, str] | None = None, **identifiers: str) -> str:
    """Return the statement in `sql/<name>.sql` with `identifiers` quoted and filled in.

    On a cluster (setting `clickhouse_cluster`) tables are made and dropped on all its servers, as
    replicas: `$on_cluster` and `$engine`. `literals` go in as they are: numbers, or strings the
    caller has quoted.
    Raises BadIdentifier.
    """
    quoted = {key: quote_identifier(value) for key, value in identifiers.items()}
    return _read(name).substitute(_cluster_parts(), **quoted, **(literals or {})).strip()


def _cluster_parts() -> dict[str, str]:
    cluster = get_settings().clickhouse_cluster
    if not cluster:
        return {"on_cluster": "", "engine": "MergeTree"}
    return {
        "on_cluster": f"ON CLUSTER {quote_identifier(cluster)}",
        "engine": "ReplicatedMergeTree",
    }
