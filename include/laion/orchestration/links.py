"""Links from a shard's task instances to the board, its source file and ClickHouse's query log."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.sdk import DAG, BaseOperatorLink, conf
from airflow.sdk.execution_time.xcom import XCom

GROUP = "ingest_shard"


class BoardLink(BaseOperatorLink):
    """The shard on the board, its details open."""

    name = "Shard on the board"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        spec = _spec(_record(operator))
        return _page(f"shards?table={quote(spec['table'])}#{spec['shard']}")


class SourceLink(BaseOperatorLink):
    """The metadata file of the shard at its first mirror, where that is on the web."""

    name = "Source file"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        from laion.urls import hide_credentials

        url = hide_credentials(_spec(_record(operator))["urls"]["metadata"][0]).replace("***@", "")
        return url if url.startswith(("http://", "https://")) else ""


class QueryLink(BaseOperatorLink):
    """What ClickHouse's query log says of the INSERT."""

    name = "ClickHouse query"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        from laion.clickhouse.shards.load import load_query_id

        # A task that was cleared may have loaded another attempt than it was given.
        staged = XCom.get_value(ti_key=ti_key, key=XCom.XCOM_RETURN_KEY)
        record = staged["parquet"] if staged else _record(operator)
        spec = _spec(record)
        query_id = load_query_id(spec["table"], spec["shard"], record["attempt"], ti_key.try_number)
        return _page(f"query?id={quote(query_id)}")


def add_shard_links(dag: DAG) -> None:
    """Give the tasks of every shard their links."""
    for task in dag.tasks:
        if task.task_id.startswith(f"{GROUP}."):
            links: list[BaseOperatorLink] = [BoardLink(), SourceLink()]
            if task.label == "load_shard":
                links.append(QueryLink())
            task.operator_extra_links = links


def _record(operator: Any) -> dict[str, Any]:
    """Return the record that the task was given: its only argument, whatever its name."""
    record: dict[str, Any] = [*operator.op_args, *operator.op_kwargs.values()][0]
    return record


def _spec(record: dict[str, Any]) -> dict[str, Any]:
    """Return the shard's spec, which every record carries within."""
    while "urls" not in record:
        record = record.get("parquet") or record["spec"]
    return record


def _page(path: str) -> str:
    """Return the address of one of our pages, within Airflow's frame."""
    base = conf.get("api", "base_url", fallback="/").rstrip("/")
    return f"{base}/plugin/laion-shards/laion/{path}"
