"""What people are told when the source of a run goes away, and when it is back."""

from __future__ import annotations

import functools
from pathlib import Path

from laion.sample.stack import Stack, StackInfo
from tests.embedded_server import poll
from tests.receivers import MailServer, WebHook
from tests.system.conftest import Job, QuietFiles, serving

SECRET = "hunter2-xyz"
SHARDS = 4


def test_a_source_that_goes_away_is_one_alert_after_all_tries_and_recovery_is_another(
    job: Job, stack: tuple[Stack, StackInfo], alerts: WebHook, mails: MailServer
) -> None:
    job.write_shards(*[50] * SHARDS)
    handler = functools.partial(QuietFiles, directory=str(job.source))
    with serving(handler) as port:
        source = f"http://me:{SECRET}@127.0.0.1:{port}"
        run_id = job.start(shards=f"0-{SHARDS - 1}", source=source)
        poll(lambda: job.task_states(run_id, "preflight") == ["success"])

    assert job.wait(run_id) == "failed"

    tries = [
        task["try_number"]
        for task in job.api.task_instances("laion_ingest", run_id)
        if task["task_id"] == "ingest_shard.download_shard"
    ]
    assert tries == [2] * SHARDS
    told = alerts.about(job.table)
    assert ["failed in download_shard" in message["title"] for message in told] == [True, False]
    assert told[1]["title"] == f"clip_retrieval: run {run_id} is incomplete"
    assert f"{SHARDS} shards (0-{SHARDS - 1}): download failed" in told[1]["message"]
    by_mail = [mail["Subject"].strip() for mail in mails.mails if job.table in mail.as_string()]
    assert by_mail == [message["title"] for message in told]

    with serving(handler, port):
        assert job.clear(run_id, only_failed=True) == "success"

    (recovered,) = alerts.about(f"clip_retrieval: recovered, {SHARDS} shards are in")
    assert f"Recovered: shards 0-{SHARDS - 1} failed before" in recovered["message"]
    assert recovered["type"] == "success"
    assert _holders_of_the_secret(stack[0].state) == []
    assert SECRET not in str(alerts.messages) + "".join(mail.as_string() for mail in mails.mails)
    ledger = job.client.query("SELECT * FROM shard_ledger").result_rows
    runs = job.client.query("SELECT * FROM ingest_runs").result_rows
    assert SECRET not in str(ledger) + str(runs)


def _holders_of_the_secret(state: Path) -> list[Path]:
    """Return the logs that hold it. (Airflow's database does: it is in the run's params.)"""
    logs = [file for file in state.rglob("*.log") if file.is_file()]
    assert len(logs) > SHARDS
    return [file for file in logs if SECRET in file.read_text(errors="replace")]
