"""What people are told when a source breaks off, and when it is mended."""

from __future__ import annotations

import functools
import re
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar

from laion.sample.stack import Stack, StackInfo
from tests.receivers import MailServer, WebHook
from tests.system.conftest import Job, QuietFiles, serving

SECRET = "hunter2-xyz"
BROKEN = (1, 2, 3)


class BrokenFiles(QuietFiles):
    """Hangs up when asked for the images of some shards."""

    is_mended: ClassVar = False

    def do_GET(self) -> None:  # noqa: N802
        if not self.is_mended and re.search(f"/img_emb_[{BROKEN[0]}-{BROKEN[-1]}]", self.path):
            self.close_connection = True
        else:
            super().do_GET()


def test_a_broken_source_is_one_alert_after_all_tries_and_its_recovery_another(
    job: Job, stack: tuple[Stack, StackInfo], alerts: WebHook, mails: MailServer
) -> None:
    job.write_shards(50, 50, 50, 50)
    with serving(functools.partial(BrokenFiles, directory=str(job.source))) as port:
        source = f"http://me:{SECRET}@127.0.0.1:{port}"
        run_id, state = job.run(shards="0-3", source=source)
        assert state == "failed"
        told = alerts.about(job.table)
        BrokenFiles.is_mended = True
        assert job.clear(run_id, only_failed=True) == "success"

    assert tries(job, run_id, "ingest_shard.download_shard") == [1, 3, 3, 3]
    failed, incomplete = told
    assert failed["title"].endswith("failed in download_shard")
    assert "try 2 of 2; it may pass by itself" in failed["message"]
    assert incomplete["title"] == f"clip_retrieval: run {run_id} is incomplete"
    assert "3 shards (1-3): download failed. SourceUnreachable" in incomplete["message"]
    by_mail = [mail["Subject"].strip() for mail in mails.mails if job.table in content(mail)]
    recovered = alerts.about(job.table)[-1]
    assert by_mail == [message["title"] for message in (*told, recovered)]
    assert recovered["title"] == "clip_retrieval: recovered, 4 shards are in"
    assert "Recovered: shards 1-3 failed before" in recovered["message"]
    assert recovered["type"] == "success"

    assert holders_of_the_secret(stack[0].state) == []
    assert SECRET not in str(alerts.messages) + "".join(map(content, mails.mails))
    for table in ("shard_ledger", "ingest_runs", "alert_events"):
        assert SECRET not in str(job.client.query(f"SELECT * FROM {table}").result_rows)


def content(mail: EmailMessage) -> str:
    """Return all that people see of a mail."""
    bodies = [mail.get_body((kind,)) for kind in ("plain", "html")]
    return "\n".join([mail["Subject"], *(body.get_content() for body in bodies if body)])


def tries(job: Job, run_id: str, name: str) -> list[int]:
    """Return how often each instance of a task was tried, by map index."""
    found = [t for t in job.api.task_instances("laion_ingest", run_id) if t["task_id"] == name]
    return [task["try_number"] for task in sorted(found, key=lambda task: task["map_index"])]


def holders_of_the_secret(state: Path) -> list[Path]:
    """Return the logs that hold it. (Airflow's database does: it is in the run's params.)"""
    logs = [file for file in state.rglob("*.log") if file.is_file()]
    assert len(logs) > len(BROKEN)
    return [file for file in logs if SECRET in file.read_text(errors="replace")]
