"""What a cluster needs beyond `ON CLUSTER`, which is in the SQL files; nothing on one server.

Parsed by the engine in the tests, never run on a cluster by us: docs/scaling.md.
"""

from __future__ import annotations

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.statements import statement
from laion.errors import UnknownCluster
from laion.settings import get_settings


def check_cluster(client: Client) -> None:
    """Make sure that the server knows the clusters of the settings. Raises UnknownCluster."""
    settings = get_settings()
    named = {
        "LAION_CLICKHOUSE_CLUSTER": settings.clickhouse_cluster,
        "LAION_CLICKHOUSE_SHARDS_CLUSTER": settings.clickhouse_shards_cluster,
    }
    if not any(named.values()):
        return
    with typed_errors("tell its clusters"):
        known = client.query(statement("known_clusters")).result_rows[0][0]
    for variable, cluster in named.items():
        if cluster and cluster not in known:
            raise UnknownCluster(
                f"{variable} is {cluster!r}, and the ClickHouse server knows "
                f"{', '.join(sorted(known)) or 'no cluster'}; correct the setting, or have the "
                "cluster added to remote_servers of its configuration"
            )
    if settings.clickhouse_shards_cluster and not settings.clickhouse_cluster:
        raise UnknownCluster(
            "LAION_CLICKHOUSE_SHARDS_CLUSTER needs LAION_CLICKHOUSE_CLUSTER as well: the cluster "
            "of the replicas that tables are made on"
        )


def sync_replica(client: Client, table: str) -> None:
    """Wait until this replica has what others have written into a table."""
    if get_settings().clickhouse_cluster:
        with typed_errors(f"catch up with the other replicas of {table}"):
            client.command(statement("sync_replica", table=table))


def ensure_distributed(client: Client, table: str) -> None:
    """Make `<table>_all`, which reads the table on every ClickHouse shard."""
    settings = get_settings()
    if not settings.clickhouse_cluster:
        return
    shards = settings.clickhouse_shards_cluster or settings.clickhouse_cluster
    with typed_errors(f"create {table}_all"):
        client.command(
            statement(
                "create_distributed",
                distributed=f"{table}_all",
                table=table,
                literals={"shards_cluster": quote_identifier(shards)},
            )
        )


def drop_distributed(client: Client, table: str) -> None:
    """Drop `<table>_all`, if this package made one."""
    if get_settings().clickhouse_cluster:
        with typed_errors(f"drop {table}_all"):
            client.command(statement("drop_table", table=f"{table}_all"))
