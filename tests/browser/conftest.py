"""Chromium in front of the real stack: Airflow with the pages, ClickHouse, the sample's server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright

from laion.sample.airflow_api import AirflowApi
from laion.sample.stack import Stack, StackInfo, running_stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ".state/screenshots"))
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 400, "height": 860}
PATIENCE_MS = 20_000
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
