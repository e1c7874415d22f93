"""Chromium in front of the real stack: Airflow with the pages, ClickHouse, the sample's server."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from clickhouse_connect.driver.client import Client
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect, sync_playwright

from laion.sample.airflow_api import AirflowApi
from laion.sample.stack import Stack, StackInfo, running_stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ".state/screenshots"))
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 400, "height": 860}
PATIENCE_MS = 20_000
RUN_TIMEOUT_S = 240
POLL_MS = 1000
IN_WORK = {"downloading", "converting", "loading"}
EXPECTED_WARNINGS = re.compile(
    # Airflow's own servers and queries, and tasks that wait for its SQLite and ask again.
    r"ASGI app factory detected|The noload\(\) option is deprecated"
    r"|Starting call to 'airflow\.sdk\.api\.client\.Client\.request'"
    "|There is no Airflow connection 'laion_alerts'"
    "|exc_type': '(BadNpy|ShardsNotPublished)'|another file than the last time"
    "|JWT token is not valid: The specified alg"
)
"""What these tests bring about; Airflow shall warn of nothing else."""
SETTLE_MS = 700
"""For pictures to load and animations to end, before people are shown a screenshot."""

expect.set_options(timeout=PATIENCE_MS)


@dataclass(frozen=True)
class Site:
    """The running stack, and a browser to look at it."""

    stack: Stack
    info: StackInfo
    api: AirflowApi
    client: Client
    browser: Browser
    _sessions: dict[str, Any] = field(default_factory=dict)

    def password(self, user: str) -> str:
        generated = self.stack.state / "airflow" / "simple_auth_manager_passwords.json.generated"
        return str(json.loads(generated.read_text())[user])

    def log_in(self, user: str = "admin") -> Page:
        """Open a window of somebody who has logged in, by Airflow's form the first time."""
        context = self.browser.new_context(
            viewport=WIDE, permissions=["clipboard-read"], storage_state=self._sessions.get(user)
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        if user in self._sessions:
            return page
        page.goto(self.info.airflow_url)
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", self.password(user))
        page.click("button[type=submit]")
        expect(page.get_by_role("link", name="Shards")).to_be_visible()
        self._sessions[user] = context.storage_state()
        return page

    def visit(self, page: Page, path: str) -> FrameLocator:
        """Open one of our pages within Airflow and return its frame."""
        view = path.partition("?")[0].partition("#")[0]
        page.goto(f"{self.info.airflow_url}/plugin/laion-{view}/laion/{path}")
        frame = page.frame_locator("iframe")
        expect(frame.get_by_role("heading", level=1)).to_be_visible()
        return frame


def cell(frame: FrameLocator, shard: int) -> Locator:
    return frame.locator(f'.grid .cell[data-shard="{shard}"]')


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the window, as an artefact for people."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `apt-get install chromium`")
    env = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer"}
    with (
        running_stack(tmp_path_factory.mktemp("stack"), env) as (stack, info),
        sync_playwright() as playwright,
        stack.clickhouse_client(info) as client,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Site(stack, info, stack.airflow_api(info), client, browser)
        browser.close()
        log = (stack.state / "logs" / "airflow.log").read_text()
        assert [line for line in read_warnings(log) if not EXPECTED_WARNINGS.search(line)] == []


def read_warnings(log: str) -> list[str]:
    """Return the lines at level warning and above."""
    return re.findall(r"\[(?:warning|error|critical)\s*\].*", re.sub("\x1b.*?m", "", log))


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """A window of the administrator; no script of ours may fail while it is open."""
    page = site.log_in()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"a dialog opened: {dialog.message}"))
    yield page
    page.context.close()
    assert problems == []


@pytest.fixture(scope="module")
def loaded(site: Site) -> set[str]:
    """The sample is loaded by a run from Airflow's form; returns the states the board showed."""
    page = site.log_in()
    frame = site.visit(page, "shards?table=sample")
    keep_screenshot(page, "shards-idle")
    page.goto(f"{site.info.airflow_url}/dags/laion_ingest")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    frame = site.visit(page, "shards?table=sample")
    seen: set[str] = set()
    for _ in range(RUN_TIMEOUT_S):
        states = frame.locator(".grid .cell").evaluate_all("all => all.map(c => c.dataset.state)")
        if IN_WORK & set(states) and not IN_WORK & seen:
            keep_screenshot(page, "shards-first-run")
        seen |= set(states)
        if states.count("validated") == 8:
            break
        page.wait_for_timeout(POLL_MS)
    keep_screenshot(page, "shards-loaded")
    (run,) = site.api.get("dags/laion_ingest/dagRuns")["dag_runs"]
    state = site.api.wait_for_run("laion_ingest", run["dag_run_id"], RUN_TIMEOUT_S)
    assert state == "success"
    page.goto(f"{site.info.airflow_url}/dags/laion_ingest/runs/{run['dag_run_id']}")
    expect(page.get_by_text("ingest_shard.validate_shard").first).to_be_visible()
    keep_screenshot(page, "run")
    page.context.close()
    return seen


@pytest.fixture
def waiting_run(site: Site) -> Iterator[str]:
    """A run that is queued and stays so, because its DAG is paused."""
    _pause(site, True)
    run_id = site.api.trigger("laion_ingest", {"dataset": "sample"})
    yield run_id
    requests.delete(
        f"{site.info.airflow_url}/api/v2/dags/laion_ingest/dagRuns/{run_id}",
        headers=dict(site.api._session.headers),
        timeout=30,
    ).raise_for_status()
    _pause(site, False)


def _pause(site: Site, is_paused: bool) -> None:
    requests.patch(
        f"{site.info.airflow_url}/api/v2/dags/laion_ingest",
        json={"is_paused": is_paused},
        headers=dict(site.api._session.headers),
        timeout=30,
    ).raise_for_status()
