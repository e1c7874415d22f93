"""Alerts as they arrive at a web hook and at a mail server, from failures told to a real ledger."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import Ledger
from laion.clickhouse.ledger.alert_log import Failure, take_recovered
from laion.errors import (
    BadNpy,
    BadSource,
    ClickHouseUnreachable,
    LaionError,
    RecallTooLow,
    RunNotPlanned,
    ShardsNotPublished,
    SourceUnreachable,
    UdfCheckFailed,
)
from laion.orchestration.alerts import alert_failure, alert_if_late, deliver, missing_connection
from laion.orchestration.messages import Alert, Message
from laion.settings import get_settings
from tests.embedded_server import EmbeddedServer
from tests.receivers import MailServer, WebHook
from tests.unit.clickhouse.shard_steps import TABLE, event, make_tables

RUN = "run_1"
LOG_URL = "http://airflow.example/dags/laion_ingest/runs/run_1/tasks/download"
BAD_FILE = BadNpy("shard 00001: img_emb_1.npy is truncated: 10 of 200 bytes")
SOURCE_DOWN = "shard {0:05d}: cannot reach https://me:hunter2@mirror.example/img_emb_{0}.npy"

Listen = Callable[..., None]


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Listen:
    """Lets alerts go to channels, given by URL."""

    def connect(*urls: str) -> None:
        config = [{"path": url} for url in urls]
        connection = {"conn_type": "apprise", "extra": {"config": config}}
        monkeypatch.setenv("AIRFLOW_CONN_LAION_ALERTS", json.dumps(connection))

    return connect


@pytest.fixture
def hook(listen: Listen) -> Iterator[WebHook]:
    with WebHook() as hook:
        listen(hook.url)
        yield hook


@pytest.fixture(autouse=True)
def ledger(
    client: Client,
    clickhouse_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Ledger]:
    target = {**clickhouse_server.airflow_connection, "schema": client.database}
    monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(target))
    monkeypatch.setenv("LAION_ALERT_SETTLE_S", "1")
    monkeypatch.setenv("LAION_STAGING_URI", tmp_path.as_uri())
    get_settings.cache_clear()
    yield make_tables(client)
    get_settings.cache_clear()


def context_of(
    shard: int = -1,
    task: str = "ingest_shard.download_shard",
    run_id: str = RUN,
    attempt: int = 4,
) -> dict[str, Any]:
    """Return what Airflow tells of a task instance."""
    task_instance = SimpleNamespace(
        dag_id="laion_ingest",
        task_id=task,
        map_index=shard,
        try_number=attempt,
        max_tries=3,
        log_url=LOG_URL,
    )
    context: dict[str, Any] = {
        "task_instance": task_instance,
        "run_id": run_id,
        "dag": SimpleNamespace(dag_id="laion_ingest"),
        "params": {"dataset": "little", "table": TABLE},
    }
    if shard >= 0:
        context["shard_number"] = shard
    return context


def fail(error: BaseException | None, **of: Any) -> None:
    """Do what Airflow does when a task fails for good."""
    alert_failure({**context_of(**of), "exception": error})  # type: ignore[arg-type,typeddict-item]


class TestStorm:
    def test_sixty_shards_that_fail_for_one_cause_are_one_message(
        self, hook: WebHook, ledger: Ledger
    ) -> None:
        ledger.append([event(s, "plan", "planned", "", rows_expected=10) for s in range(60)])

        with ThreadPoolExecutor(12) as workers:
            list(
                workers.map(
                    lambda s: fail(SourceUnreachable(SOURCE_DOWN.format(s)), shard=s), range(60)
                )
            )

        (only,) = hook.messages
        assert "shards failed in download_shard" in only["title"]
        assert ledger.client.command("SELECT count() FROM alert_events") == 60

    def test_failures_of_two_causes_are_two_messages(self, hook: WebHook) -> None:
        fail(SourceUnreachable(SOURCE_DOWN.format(0)), shard=0)
        fail(BAD_FILE, shard=1)
        fail(BadNpy("shard 00002: img_emb_2.npy is truncated: 7 of 300 bytes"), shard=2)

        assert [m["title"] for m in hook.messages] == [
            "little: shard 00000 failed in download_shard",
            "little: shard 00001 failed in download_shard",
        ]

    def test_another_run_speaks_for_itself(self, hook: WebHook) -> None:
        fail(BAD_FILE, shard=1)
        fail(BAD_FILE, shard=1, run_id="run_2")

        assert len(hook.messages) == 2

    def test_a_task_that_was_cleared_and_fails_again_is_told_again(self, hook: WebHook) -> None:
        for shard in (1, 2):
            fail(BAD_FILE, shard=shard)
        assert len(hook.messages) == 1

        for shard in (1, 2):
            fail(BAD_FILE, shard=shard, attempt=8)

        assert len(hook.messages) == 2


class TestMessage:
    def test_it_says_what_failed_and_what_to_do(self, hook: WebHook, ledger: Ledger) -> None:
        ledger.append([event(1, "plan", "planned", "", rows_expected=60)])

        fail(BAD_FILE, shard=1)

        text = hook.messages[0]["message"]
        assert hook.messages[0]["title"] == "little: shard 00001 failed in download_shard"
        assert "BadNpy: shard 00001: img_emb_1.npy is truncated: 10 of 200 bytes" in text
        assert "dataset little, table little, shards 1" in text
        assert "rows: 60 expected, 0 loaded" in text
        assert "try 4 of 4; trying again does not help by itself" in text
        assert f"log: <{LOG_URL}>" in text
        assert "/laion/shards?table=little>" in text
        assert (
            "airflow dags trigger laion_backfill --conf "
            """'{"table": "little", "shards": "1", "dry_run": false}'"""
        ) in text

    def test_a_task_of_no_shard_has_no_backfill(self, hook: WebHook) -> None:
        fail(RecallTooLow("little_search reaches 0.80"), task="measure_recall")

        assert hook.messages[0]["title"] == (
            "little: the new search table finds too little and is not in use"
        )
        assert "laion_backfill" not in hook.messages[0]["message"]
        assert "clear the task" in hook.messages[0]["message"]

    @pytest.mark.parametrize(
        ("error", "task", "title", "alert"),
        [
            (RecallTooLow("0.80"), "measure_recall", "the new search table", Alert.RECALL_LOW),
            (UdfCheckFailed("odd"), "deploy_udfs", "the SQL functions", Alert.FUNCTIONS_FAILED),
            (BadSource("none"), "plan", "a task failed in plan", Alert.TASK_FAILED),
            (ShardsNotPublished("1 of 2"), "confirm_shards", "run run_1 is", Alert.RUN_INCOMPLETE),
        ],
    )
    def test_it_links_its_section_of_the_runbook(
        self,
        hook: WebHook,
        monkeypatch: pytest.MonkeyPatch,
        error: LaionError,
        task: str,
        title: str,
        alert: Alert,
    ) -> None:
        monkeypatch.setenv("LAION_RUNBOOK_URL", "https://wiki.example/laion")
        get_settings.cache_clear()

        fail(error, task=task)

        (only,) = hook.about(title)
        assert f"what to do: https://wiki.example/laion#{alert}" in only["message"]

    def test_a_mail_has_text_and_html(self, listen: Listen) -> None:
        with MailServer() as server:
            listen(server.url)
            fail(BAD_FILE, shard=1)

        (mail,) = server.mails
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        assert text is not None
        assert html is not None
        assert mail["Subject"] == "little: shard 00001 failed in download_shard"
        assert "laion_backfill" in text.get_content()
        assert LOG_URL in text.get_content()
        assert f'<a href="{LOG_URL}">' in html.get_content()

    def test_no_password_reaches_a_message_or_the_ledger(
        self, hook: WebHook, ledger: Ledger
    ) -> None:
        fail(SourceUnreachable(SOURCE_DOWN.format(1)), shard=1)
        fail(ShardsNotPublished(SOURCE_DOWN.format(1)), task="confirm_shards")

        assert len(hook.messages) == 2
        assert "hunter2" not in json.dumps(hook.messages)
        assert "***@mirror.example" in hook.messages[0]["message"]
        assert "hunter2" not in ledger.client.command("SELECT error FROM alert_events")


class TestGate:
    def test_its_alert_is_the_digest(self, hook: WebHook) -> None:
        fail(ShardsNotPublished("1 of 2 planned shards"), task="confirm_shards")

        assert hook.messages[0]["title"] == "little: run run_1 is incomplete"
        assert "1 of 2 planned shards" in hook.messages[0]["message"]

    def test_it_is_silent_when_the_plan_has_told_already(self, hook: WebHook) -> None:
        fail(SourceUnreachable("no host"), task="plan")
        fail(RunNotPlanned("never planned"), task="confirm_shards")

        assert [m["title"] for m in hook.messages] == ["little: a task failed in plan"]

    def test_it_speaks_when_the_plan_was_killed_and_could_not_tell(self, hook: WebHook) -> None:
        fail(RunNotPlanned("the run was never planned"), task="confirm_shards")

        assert "the run was never planned" in hook.messages[0]["message"]


class TestLateRun:
    def start(self, hours_ago: float, run_id: str = RUN) -> None:
        """Do what Airflow does before it executes a task."""
        began = datetime.now(UTC) - timedelta(hours=hours_ago)
        alert_if_late({**context_of(run_id=run_id), "dag_run": SimpleNamespace(start_date=began)})  # type: ignore[arg-type,typeddict-item]

    def test_it_says_how_far_the_run_is_once(self, hook: WebHook, ledger: Ledger) -> None:
        ledger.append([event(s, "plan", "planned", "") for s in (0, 1, 2)])
        ledger.append([event(0, "publish", "done", "aaaa0001", rows_loaded=60)])
        ledger.append([event(1, "convert", "failed", "bbbb0002")])

        self.start(47.9)
        assert hook.messages == []
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(self.start, [48.1] * 4))
        self.start(50)

        (only,) = hook.messages
        assert only["title"] == "little: run run_1 is late"
        assert "1 of 3 planned shards are in; shards 1 failed." in only["message"]
        assert "began more than 48 hours ago and has not ended" in only["message"]
        assert "/dags/laion_ingest/runs/run_1>" in only["message"]

    def test_without_a_ledger_the_task_goes_on(
        self, hook: WebHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nobody = {"conn_type": "clickhouse", "host": "127.0.0.1", "port": 1}
        monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(nobody))

        self.start(50)

        assert hook.messages == []


class TestRecovery:
    def test_shards_published_after_their_failure_was_told_are_named_once(
        self, hook: WebHook, ledger: Ledger
    ) -> None:
        for shard in (1, 2, 3):
            fail(BAD_FILE, shard=shard)
        for shard in (0, 1, 2):
            ledger.append([event(shard, "publish", "done", "bbbb0002", rows_loaded=60)])

        assert take_recovered(ledger, TABLE, "little") == [1, 2]
        assert take_recovered(ledger, TABLE, "little") == []

    def test_a_shard_that_fails_once_more_is_named_once_more(
        self, hook: WebHook, ledger: Ledger
    ) -> None:
        for attempt in ("bbbb0002", "cccc0003"):
            fail(BAD_FILE, shard=1)
            ledger.append([event(1, "publish", "done", attempt, rows_loaded=60)])

            assert take_recovered(ledger, TABLE, "little") == [1]


class TestLedgerDown:
    @pytest.fixture(autouse=True)
    def no_clickhouse(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        nobody = {"conn_type": "clickhouse", "host": "127.0.0.1", "port": 1, "password": "hunter2"}
        monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(nobody))

    def test_a_run_says_so_once_whatever_fails(self, hook: WebHook) -> None:
        for shard in range(5):
            fail(ClickHouseUnreachable("no answer"), shard=shard)
        fail(BAD_FILE, shard=7)
        fail(ClickHouseUnreachable("no answer"), task="confirm_shards")

        (only,) = hook.messages
        assert only["title"] == "little: the ledger is down"
        assert "check host, port and TLS" in " ".join(only["message"].split())
        assert "hunter2" not in only["message"]

    def test_another_run_says_so_too(self, hook: WebHook) -> None:
        fail(BAD_FILE, shard=1)
        fail(BAD_FILE, shard=1, run_id="run_2")

        assert len(hook.messages) == 2


class TestChannel:
    @pytest.mark.parametrize("path", ["json://me:hunter2@127.0.0.1:1/", "nonsense://hunter2/"])
    def test_one_that_is_down_fails_nothing_and_shows_no_password(
        self, listen: Listen, caplog: pytest.LogCaptureFixture, path: str
    ) -> None:
        listen(path)

        with caplog.at_level(logging.DEBUG):
            fail(BAD_FILE, shard=1)

        assert "Not every channel of 'laion_alerts' accepted the alert" in caplog.text
        assert "hunter2" not in caplog.text

    def test_one_that_refuses_does_not_keep_the_other_from_telling(
        self, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        with WebHook(status=500) as refusing, WebHook() as hook:
            listen(refusing.url, hook.url)
            assert deliver(Message("title", "body")) is False

        assert len(hook.messages) == 1

    def test_one_that_never_answers_is_given_up(
        self, listen: Listen, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            listen(f"json://127.0.0.1:{silent.getsockname()[1]}/")
            fail(BAD_FILE, shard=1)

        assert "Not every channel of 'laion_alerts' accepted the alert" in caplog.text

    def test_without_a_connection_it_is_said_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        fail(BAD_FILE, shard=1)

        assert "There is no Airflow connection 'laion_alerts'" in caplog.text
        warning = missing_connection()
        assert warning is not None
        assert "alerts reach nobody" in warning

    def test_with_a_connection_there_is_no_warning(self, hook: WebHook) -> None:
        assert missing_connection() is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("shard 00001: 10 of 200 bytes", "shard 00402: 7 of 3 bytes", True),
        ("HTTP 404 for https://a.example/1.npy", "HTTP 404 for https://a.example/x/2.npy", True),
        ("HTTP 404 for https://a.example/1.npy", "HTTP 404 for https://b.example/1.npy", False),
        ("no room in /data/aaaa0001/x", "no room in /data/bbbb0002/y", True),
        ("it is truncated", "it is empty", False),
    ],
)
def test_errors_that_differ_in_numbers_and_paths_have_one_cause(
    one: str, other: str, same: bool
) -> None:
    def cause(error: str) -> str:
        return Failure("t", "d", "dag", "run", "task", 0, 1, 1, 0, "BadNpy", error, "").cause

    assert (cause(one) == cause(other)) is same
