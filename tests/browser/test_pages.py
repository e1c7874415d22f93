"""What people do with the pages, in a browser on the real stack. One stack for all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from fastapi.routing import APIRoute
from playwright.sync_api import FrameLocator, Locator, Page, expect

from laion.web.app import Backend, create_app
from laion.web.security import OWN_REQUEST_HEADER
from tests.browser.conftest import NARROW, WIDE, Site, keep_screenshot
from tests.browser.ledger_rows import write_shards

RUN_TIMEOUT_S = 240
MS = 1000
IN_WORK = {"downloading", "converting", "loading"}
HOSTILE = "<script>window.parent.hacked = 1</script>\"><img src=x onerror='parent.hacked=1'>"
EMPTY_BACKEND = Backend(
    clickhouse=None,  # type: ignore[arg-type]
    may_read=lambda: None,
    may_trigger=lambda: False,
    active_runs=frozenset,
    source_urls=lambda dag_id, run_id, shard: {},
)


def cell(frame: FrameLocator, shard: int) -> Locator:
    return frame.locator(f'.grid .cell[data-shard="{shard}"]')


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
            keep_screenshot(page, "shards-running")
        seen |= set(states)
        if states.count("validated") == 8:
            break
        page.wait_for_timeout(MS)
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


class TestBoard:
    def test_it_turns_green_while_a_run_from_the_form_goes_on(self, loaded: set[str]) -> None:
        assert "validated" in loaded
        assert loaded & {"queued", *IN_WORK}

    def test_a_broken_shard_shows_red_with_its_error_and_is_backfilled(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        broken = site.stack.state / "sample" / "img_emb" / "img_emb_5.npy"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-100])
        only = {"dataset": "sample", "shards": "5", "build_index": False, "deploy_udfs": False}
        run_id = site.api.trigger("laion_ingest", only)
        frame = site.visit(page, "shards?table=sample")
        site.api.wait_for_run("laion_ingest", run_id, RUN_TIMEOUT_S)
        expect(cell(frame, 5)).to_have_attribute("data-state", "failed")
        expect(cell(frame, 5)).to_have_class(re.compile("published"))
        cell(frame, 5).click()
        expect(frame.locator("#details .bad").first).to_contain_text("BadNpy")
        keep_screenshot(page, "shards-failed")

        broken.write_bytes(whole)
        frame.get_by_role("button", name="Backfill all failed").click()
        expect(frame.get_by_role("dialog")).to_contain_text("its last attempt failed in download")
        keep_screenshot(page, "shards-backfill")
        frame.get_by_role("button", name="Start the run").click()

        expect(frame.locator("#started")).to_contain_text("Started run")
        expect(cell(frame, 5)).to_have_attribute("data-state", "validated", timeout=90 * MS)
        expect(frame.locator("#total-rows")).to_have_text("12,000")

    def test_a_log_opens_in_airflow_itself(self, site: Site, page: Page, loaded: set[str]) -> None:
        frame = site.visit(page, "shards?table=sample#3")

        frame.locator("#details").get_by_role("link", name="log").first.click()

        page.wait_for_url(re.compile(r"/dags/laion_ingest/runs/.*/tasks/.*"))

    def test_it_can_be_used_by_keyboard_alone(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "shards?table=sample")
        cell(frame, 0).focus()

        for key in ("ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        expect(frame.locator("#details")).to_contain_text("Shard 00002")
        page.keyboard.press("Escape")
        expect(frame.locator("#details")).to_be_hidden()
        for key in (" ", "Shift+ArrowRight", "Shift+ArrowRight"):
            page.keyboard.press(key)

        expect(frame.locator("#expression")).to_have_value("2-4")
        backfill = frame.get_by_role("button", name="Backfill selected")
        for _ in range(20):
            page.keyboard.press("Shift+Tab")
            if backfill.evaluate("button => button === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(frame.get_by_role("dialog")).to_contain_text("load 3 shards into table sample")
        page.keyboard.press("Escape")
        expect(frame.get_by_role("dialog")).to_be_hidden()
        expect(backfill).to_be_focused()

    def test_states_can_be_told_without_colour(
        self, site: Site, page: Page, waiting_run: str
    ) -> None:
        steps = {
            "publish done": [*range(140), *range(150, 201)],
            "download failed": [140, 168, 203],
            "load failed": [207],
            "load started": range(208, 212),
            "convert started": range(212, 215),
            "download started": range(215, 219),
            "plan planned": range(219, 280),
        }
        write_shards(site.client, "laion400m", waiting_run, steps)
        frame = site.visit(page, "shards?table=laion400m")
        expect(frame.locator(".grid .cell")).to_have_count(410)
        keep_screenshot(page, "shards")

        signs = frame.locator(".grid").evaluate(
            "grid => Object.fromEntries([...grid.querySelectorAll('.cell')].map(c => "
            "[c.dataset.state, getComputedStyle(c, '::before').content]))"
        )

        assert len(signs) >= 7
        assert len(set(signs.values())) == len(signs)
        page.evaluate("document.documentElement.classList.replace('light', 'dark')")
        page.evaluate("document.documentElement.classList.add('dark')")
        expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
        keep_screenshot(page, "shards-dark")
        page.set_viewport_size(NARROW)
        page.goto(f"{site.info.airflow_url}/laion/shards?table=laion400m")
        expect(page.locator(".grid .cell")).to_have_count(410)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        keep_screenshot(page, "shards-narrow")

    def test_it_warns_when_alerts_reach_nobody(self, site: Site, page: Page) -> None:
        frame = site.visit(page, "shards")

        expect(frame.locator("#warning")).to_contain_text("'laion_alerts': alerts reach nobody")

    def test_pace_and_percentages_follow_from_the_cells(self, site: Site, page: Page) -> None:
        page.goto(f"{site.info.airflow_url}/laion/shards")
        found = page.evaluate(
            """async () => {
                const { measurePace, percentOf, usualBytes, readCell } =
                    await import("./static/cells.js");
                const states = ["queued", "downloading", "validated"];
                const cells = [
                    [0], [1, 1, 0, 0, 0, 500], [2, 1, 0, 0, 0, 5000], [3, 1],
                    [4, 2, 1000, 7, 1, 2000, 900], [5, 2, 9000, 10, 1, 2000, 8900],
                    [6, 2, 9100, 20, 1, 2200, 8940],
                ].map((cell) => readCell(cell, states));
                const usual = usualBytes(cells);
                return { usual, percents: cells.map((cell) => percentOf(cell, usual) ?? null),
                         pace: measurePace(cells, 9200), none: measurePace(cells, 99000) };
            }"""
        )

        assert found["usual"] == 2000
        assert found["percents"] == [None, 25, 99, None, None, None, None]
        # Since the first of them was begun; the shard of two hours before does not count.
        assert found["pace"] == {"seconds": 300, "shards": 2, "rows": 30, "bytes": 4200}
        assert found["none"] == {"seconds": 0, "shards": 0, "rows": 0, "bytes": 0}

    def test_errors_from_data_stay_text(self, site: Site, page: Page) -> None:
        write_shards(
            site.client, "hostile", HOSTILE, {"load failed": [1]}, dataset=HOSTILE, error=HOSTILE
        )
        frame = site.visit(page, "shards?table=hostile#1")

        expect(frame.locator("#details .bad").first).to_contain_text("onerror")
        assert page.evaluate("window.hacked") is None

    def test_five_thousand_shards_are_shown_when_their_table_is_chosen(
        self, site: Site, page: Page
    ) -> None:
        steps = {"publish done": range(4000), "download failed": range(4000, 5000)}
        write_shards(site.client, "many", "run_many", steps, dataset="unknown")

        frame = site.visit(page, "shards?table=sample")
        frame.locator("#table").select_option("many")

        expect(frame.locator(".grid .cell")).to_have_count(5000)
        keep_screenshot(page, "shards-many")
        frame.locator(".chip[data-state=failed]").click()
        expect(frame.locator(".grid .cell.dim")).to_have_count(4000)


class TestSearch:
    def test_words_find_pictures_and_the_methods_agree(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "search")
        frame.get_by_label("Words").fill("a sleepy ginger cat")
        page.keyboard.press("Enter")
        expect(frame.locator(".hit")).to_have_count(24)
        keep_screenshot(page, "search")

        frame.get_by_text("Both", exact=True).click()

        expect(frame.locator(".overlap")).to_contain_text(re.compile(r"2[0-4] of 24"))
        expect(frame.locator("#summary")).to_contain_text("encode_text in ClickHouse")
        assert "cat" in " ".join(frame.locator(".caption").all_inner_texts())
        shown = frame.locator(".hit:not(.unsafe) img").first
        expect(shown).to_have_js_property("naturalWidth", 256)
        expect(shown).to_have_attribute("referrerpolicy", "no-referrer")
        keep_screenshot(page, "search-both")

    def test_a_picture_finds_its_like_and_so_does_a_row(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "search")
        frame.locator("#picture").set_input_files(site.stack.pictures / "lighthouse.jpg")
        expect(frame.locator(".caption").first).to_be_visible()
        captions = frame.locator(".caption").all_inner_texts()
        assert sum("lighthouse" in caption for caption in captions) >= 12

        frame.get_by_role("button", name="More like this").nth(1).click()

        expect(frame.locator("#chosen")).to_contain_text("like row")
        expect(frame.locator("#summary")).to_contain_text("the row's vector")

    def test_the_sql_is_copied_and_runs(self, site: Site, page: Page, loaded: set[str]) -> None:
        frame = site.visit(page, "search?words=a dog&table=sample&limit=12")
        expect(frame.locator(".hit")).to_have_count(12)
        frame.get_by_role("button", name="SQL").click()
        frame.get_by_role("button", name="Copy").click()
        expect(frame.get_by_role("button", name="Copied")).to_be_visible()

        sql = page.evaluate("navigator.clipboard.readText()")

        captions = [row[2] for row in site.client.query(sql).result_rows]
        shown = frame.locator(".caption").all_inner_texts()
        assert [" ".join(caption.split()) or "no caption" for caption in captions] == shown

    def test_dead_pictures_and_hostile_captions_do_no_harm(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        site.client.command(
            "INSERT INTO sample_search SELECT * REPLACE (70000001 AS id, {c:String} AS caption, "
            "'javascript:parent.hacked=1' AS url, 'NSFW' AS NSFW) "
            "FROM (SELECT * FROM sample_search WHERE id = 7)",
            parameters={"c": HOSTILE},
        )
        frame = site.visit(page, "search?like=7&table=sample&limit=12")

        hit = frame.locator(".hit").filter(has_text="onerror")
        expect(hit).to_be_visible()
        expect(hit.locator(".gone")).to_be_visible()
        expect(hit.locator("a")).to_have_count(0)
        assert page.evaluate("window.hacked") is None
        keep_screenshot(page, "search-dead")

    def test_it_is_dark_where_airflow_is_and_fits_a_phone(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "search?words=lighthouse at night&table=sample")
        expect(frame.locator(".hit")).to_have_count(24)
        page.evaluate("document.documentElement.classList.add('dark')")
        keep_screenshot(page, "search-dark")
        page.set_viewport_size(NARROW)
        page.goto(f"{site.info.airflow_url}/laion/search?words=dog&table=sample")
        expect(page.locator(".hit")).to_have_count(24)

        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        keep_screenshot(page, "search-narrow")
        page.set_viewport_size(WIDE)


class TestAccess:
    def routes(self) -> list[tuple[str, str]]:
        values = {"name": "page.css", "shard": "1"}
        return [
            (method, f"/laion{route.path.format(**values)}")
            for route in create_app(EMPTY_BACKEND).routes
            if isinstance(route, APIRoute)
            for method in route.methods
        ]

    def test_nobody_sees_anything_without_logging_in(self, site: Site) -> None:
        url = site.info.airflow_url
        answers = {
            route: requests.request(route[0], url + route[1], timeout=30).status_code
            for route in self.routes()
        }

        assert len(answers) >= 10
        assert set(answers.values()) == {401}, answers

    def test_a_forged_token_is_refused(self, site: Site) -> None:
        headers = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."}

        answer = requests.get(f"{site.info.airflow_url}/laion/shards", headers=headers, timeout=30)

        assert answer.status_code in (401, 403)

    def test_a_viewer_reads_but_cannot_backfill(self, site: Site, loaded: set[str]) -> None:
        page = site.log_in("viewer")
        frame = site.visit(page, "shards?table=sample")
        expect(frame.locator(".grid .cell")).to_have_count(8)
        expect(frame.get_by_role("button", name="Backfill all failed")).to_be_hidden()
        send = (
            "([path, body]) => fetch(path, {method: 'POST', body: JSON.stringify(body), headers: "
            f"{{'Content-Type': 'application/json', '{OWN_REQUEST_HEADER}': '1'}}}})"
            ".then(answer => answer.status)"
        )

        queries = {
            "/laion/query": "id=laion-load-x",
            "/laion/search/results": "table=sample&like=7",
        }
        reads = [path for method, path in self.routes() if method == "GET"]
        read = page.evaluate(
            "paths => Promise.all(paths.map(path => fetch(path).then(answer => answer.status)))",
            [f"{path}?{queries.get(path, 'table=sample&since=0')}" for path in reads],
        )
        assert set(read) == {200}, dict(zip(reads, read, strict=True))
        dry_run = page.evaluate(send, ["/laion/board/backfill", {"table": "sample", "shards": "1"}])
        trigger = page.evaluate(
            send,
            ["/api/v2/dags/laion_ingest/dagRuns", {"conf": {}, "logical_date": None}],
        )

        assert (dry_run, trigger) == (403, 403)
        page.context.close()


def test_a_task_instance_links_to_its_shard_its_source_and_its_query(
    site: Site, page: Page, loaded: set[str]
) -> None:
    runs = site.api.get("dags/laion_ingest/dagRuns", order_by="start_date")["dag_runs"]
    path = f"dags/laion_ingest/dagRuns/{runs[0]['dag_run_id']}/taskInstances"
    links = site.api.get(f"{path}/ingest_shard.load_shard/links", map_index=3)["extra_links"]

    assert links["Source file"].endswith("metadata_3.parquet")
    page.goto(links["Shard on the board"])
    expect(page.frame_locator("iframe").locator("#details")).to_contain_text("Shard 00003")
    page.goto(links["ClickHouse query"])
    expect(page.frame_locator("iframe").locator("main")).to_contain_text("QueryFinish")
