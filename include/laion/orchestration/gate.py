"""The gate of a run: are all planned shards in?"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import get_current_context

from laion.clickhouse.ledger import Ledger
from laion.clickhouse.ledger.alert_log import take_recovered
from laion.clickhouse.schema import ensure_ledger
from laion.errors import RunNotPlanned, ShardsNotPublished
from laion.orchestration.alerts import airflow_url, deliver
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.context import staging_area
from laion.orchestration.leftovers import discard_run
from laion.orchestration.lineage import BASE_TABLE, tell
from laion.orchestration.messages import describe_run
from laion.orchestration.origin import task_origin
from laion.orchestration.params import IngestRequest
from laion.orchestration.summary import format_digest

log = logging.getLogger(__name__)


def confirm() -> dict[str, Any]:
    """Fail the run unless the ledger shows every planned shard published since it was planned.

    Raises ShardsNotPublished, whose text is the run's digest; else sends the digest.
    """
    context = get_current_context()
    request, origin = IngestRequest.from_params(context["params"]), task_origin(context)
    with clickhouse_client() as client:
        ensure_ledger(client)
        ledger = Ledger(client)
        if ledger.frozen_shards(origin) is None:
            raise RunNotPlanned("the run was never planned; see the log of the task `plan`")
        discard_run(ledger, staging_area(), origin, request.table)
        outcomes = ledger.run_outcomes(origin.dag_id, origin.run_id)
        missing = [outcome for outcome in outcomes if not outcome.is_published]
        if outcomes:
            ledger.record_end(
                origin, table=request.table, planned=len(outcomes), missing=len(missing)
            )
        recovered = take_recovered(ledger, request.table, request.dataset)
    digest = format_digest(request.dataset, request.table, outcomes, recovered)
    log.info("%s", digest)
    if len(missing) > request.tolerate_failed_shards:
        raise ShardsNotPublished(digest)
    if outcomes:
        published = len(outcomes) - len(missing)
        told = "1 shard is in" if published == 1 else f"{published} shards are in"
        title = f"{request.dataset}: {'recovered, ' if recovered else ''}{told}"
        deliver(
            describe_run(
                title, digest, table=request.table, airflow_url=airflow_url(), good=not missing
            )
        )
    result = {
        "shards": len(outcomes),
        "missing": [outcome.shard for outcome in missing],
        "rows": sum(outcome.rows_loaded for outcome in outcomes),
    }
    tell(BASE_TABLE, table=request.table, dataset=request.dataset, **result)
    return result
