"""The bodies of `laion_backfill`'s tasks, and its form in the UI."""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.sdk import get_current_context

from laion.backfill import (
    RUN_PREFIX,
    BackfillRequest,
    claim_shards,
    format_plan,
    ingest_conf,
    plan_backfill,
)
from laion.clickhouse.ledger.shard_facts import last_load
from laion.clickhouse.schema import ensure_ledger
from laion.errors import NeverLoaded
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.params import backfill_params, check_conf
from laion.urls import hide_credentials

log = logging.getLogger(__name__)


def find_shards() -> dict[str, Any]:
    """Log what needs work and why; return the params of the run that repairs it, or {}."""
    context = get_current_context()
    check_conf(context["dag_run"].conf, backfill_params())
    params = context["params"]
    request = BackfillRequest(
        table=(params["table"] or "").strip() or params["dataset"],
        which=params["which"],
        shards=(params["shards"] or "").strip(),
        max_shards=params["max_shards"],
        quiet_s=60 * params["quiet_minutes"],
        source=(params["source"] or "").strip(),
        run_id=f"{RUN_PREFIX}{context['run_id']}",
    )
    with clickhouse_client() as client:
        ensure_ledger(client)
        if last_load(client, request.table) is None:
            raise NeverLoaded(
                f"no run in the ledger has loaded into table {request.table!r}; check the params "
                "`dataset` and `table`"
            )
        repairs = plan_backfill(client, request)
        conf = ingest_conf(client, request, repairs) or {}
        if not params["dry_run"]:
            claim_shards(client, request, repairs)
    log.info("%s", format_plan(request, repairs))
    if conf:
        log.info("laion_ingest would be triggered with %s", hide_credentials(json.dumps(conf)))
    return conf


def is_wanted(conf: dict[str, Any]) -> bool:
    """Return whether `laion_ingest` is to be triggered."""
    if not conf:
        log.info("There is nothing to trigger.")
    elif get_current_context()["params"]["dry_run"]:
        log.info("This was a dry run. Trigger again with dry_run off to repair the shards.")
    else:
        return True
    return False
