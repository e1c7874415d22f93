"""What people do with the pages, in a browser on the real stack. One stack for all of it."""

from __future__ import annotations

import re

import requests
from fastapi.routing import APIRoute
from playwright.sync_api import Page, Route, expect

from laion.web.app import Backend, create_app
from laion.web.security import OWN_REQUEST_HEADER
from tests.browser.conftest import IN_WORK, NARROW, RUN_TIMEOUT_S, WIDE, Site, cell, keep_screenshot
from tests.browser.ledger_rows import HALF_WAY, write_shards

MS = 1000
HOSTILE = "<script>window.parent.hacked = 1</script>\"><img src=x onerror='parent.hacked=1'>"
ATTEMPTS = "SELECT shard, published_attempt FROM shard_status WHERE table = 'sample' ORDER BY shard"
EMPTY_BACKEND = Backend(
    clickhouse=None,  # type: ignore[arg-type]
    may_read=lambda: None,
    may_trigger=lambda: False,
    active_runs=frozenset,
    source_urls=lambda dag_id, run_id, shard: {},
)


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
        frame.get_by_role("button", name="Backfill failed and missing").click()
        expect(frame.get_by_role("dialog")).to_contain_text("its last attempt failed in download")
        keep_screenshot(page, "shards-backfill")
        frame.get_by_role("button", name="Start the run").click()

        expect(frame.locator("#started")).to_contain_text("Started run")
        expect(cell(frame, 5)).to_have_attribute("data-state", "validated", timeout=90 * MS)
        expect(frame.locator("#total-rows")).to_have_text("12,000")

    def test_cells_are_filtered_and_only_the_selected_ones_are_loaded_again(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "shards?table=sample")
        chip = frame.locator(".chip[data-state=validated]")
        frame.locator(".chip[data-state=queued]").click()
        expect(frame.locator(".grid .cell.dim")).to_have_count(8)
        chip.click()
        expect(frame.locator(".grid .cell.dim")).to_have_count(0)
        chip.click()
        expression = frame.locator("#expression")
        expression.fill("1-2")
        expect(frame.locator(".grid [aria-selected=true]")).to_have_count(2)
        cell(frame, 7).click(modifiers=["ControlOrMeta"])
        expect(expression).to_have_value("1-2,7")
        expression.fill("1-")
        expect(expression).to_have_attribute("aria-invalid", "true")
        expect(frame.locator("#selection")).to_have_text("3 selected")
        expression.fill("1,7")
        runs = site.api.get("dags/laion_ingest/dagRuns")["total_entries"]
        attempts = dict(site.client.query(ATTEMPTS).result_rows)

        frame.get_by_role("button", name="Backfill selected").click()
        dialog = frame.get_by_role("dialog")
        expect(dialog.get_by_role("row")).to_contain_text(["why", "1load1,777", "7load1,738"])
        dialog.get_by_role("button", name="Cancel").click()
        assert site.api.get("dags/laion_ingest/dagRuns")["total_entries"] == runs
        frame.get_by_role("button", name="Backfill selected").click()
        dialog.get_by_role("button", name="Start the run").click()

        run_id = frame.locator("#started a").inner_text()
        assert site.api.wait_for_run("laion_ingest", run_id, RUN_TIMEOUT_S) == "success"
        again = dict(site.client.query(ATTEMPTS).result_rows)
        assert [shard for shard in again if again[shard] != attempts[shard]] == [1, 7]

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
        write_shards(site.client, "laion400m", waiting_run, HALF_WAY)
        frame = site.visit(page, "shards?table=laion400m")
        expect(frame.locator(".grid .cell")).to_have_count(410)
        expect(cell(frame, 218)).to_have_attribute("title", "Shard 218: downloading 60 %")
        keep_screenshot(page, "shards")
        cell(frame, 218).click()
        expect(frame.locator("#details")).to_contain_text("downloading 60 %")
        keep_screenshot(page, "shards-running")
        page.keyboard.press("Escape")
        cell(frame, 218).blur()
        page.mouse.move(0, 0)

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

    def test_a_picture_chosen_before_the_page_s_script_is_there_is_searched_for(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        held: list[Route] = []
        page.route(re.compile("static/search.js"), lambda route: held.append(route))
        page.goto(f"{site.info.airflow_url}/plugin/laion-search/laion/search", wait_until="commit")
        frame = page.frame_locator("iframe")
        frame.locator("#picture").set_input_files(site.stack.pictures / "lighthouse.jpg")

        while not held:
            page.wait_for_timeout(50)
        held[0].continue_()

        expect(frame.locator("#chosen")).to_contain_text("lighthouse.jpg")
        expect(frame.locator(".caption").first).to_be_visible()

    def test_filters_let_through_what_they_say(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        frame = site.visit(page, "search?words=a cat&table=sample")
        expect(frame.locator(".hit")).to_have_count(24)

        def narrow(field: str, value: str) -> None:
            with page.expect_response(re.compile("/search/results")):
                if field == "nsfw":
                    frame.locator("#nsfw").select_option(label=value)
                else:
                    frame.locator(f"#{field}").fill(value)
                    frame.locator(f"#{field}").press("Enter")
            expect(frame.locator("#results")).not_to_have_attribute("aria-busy", "true")

        def facts(term: str) -> list[str]:
            return frame.locator(f".hit dt:text-is('{term}') + dd").all_inner_texts()

        narrow("nsfw", "NSFW")
        expect(frame.locator(".hit .flag")).to_have_text(["nsfw"] * 24)
        picture = frame.locator(".hit.unsafe img").first
        expect(picture).to_have_css("filter", re.compile("blur"))
        frame.get_by_label("Show unsafe pictures").check()
        expect(picture).to_have_css("filter", "none")
        keep_screenshot(page, "search-filtered")
        narrow("nsfw", "any")
        narrow("licenses", "CC0")
        assert facts("license") == ["CC0"] * 24
        usual = float(site.client.command("SELECT round(median(similarity), 2) FROM sample"))
        narrow("min_similarity", str(usual))
        assert facts("license") == ["CC0"] * 24
        assert min(map(float, facts("similarity"))) >= usual
        narrow("min_height", "256")
        assert facts("size") == ["256 × 256"] * 24
        narrow("min_width", "257")
        expect(frame.locator("#results")).to_have_text("Nothing passes these filters.")
        assert {"licenses=CC0", f"min_similarity={usual}"} <= set(page.frames[-1].url.split("&"))

    def test_the_sql_is_copied_and_runs(self, site: Site, page: Page, loaded: set[str]) -> None:
        frame = site.visit(page, "search?words=a dog&table=sample&limit=12")
        expect(frame.locator(".hit")).to_have_count(12)
        frame.get_by_role("button", name="SQL").click()
        frame.get_by_role("button", name="Copy").click()
        expect(frame.get_by_role("button", name="Copied")).to_be_visible()

        sql = page.evaluate("navigator.clipboard.readText()")

        captions = [row["caption"] for row in site.client.query(sql).named_results()]
        shown = frame.locator(".caption").all_inner_texts()
        assert [" ".join(caption.split()) or "no caption" for caption in captions] == shown

    def test_dead_pictures_and_hostile_captions_do_no_harm(
        self, site: Site, page: Page, loaded: set[str]
    ) -> None:
        site.client.command(
            "INSERT INTO sample SELECT * REPLACE (70000001 AS id, {c:String} AS caption, "
            "'javascript:parent.hacked=1' AS url, 'NSFW' AS NSFW) "
            "FROM (SELECT * FROM sample WHERE id = 7)",
            parameters={"c": HOSTILE},
        )
        frame = site.visit(page, "search?like=7&table=sample&limit=12")

        hit = frame.locator(".hit").filter(has_text="onerror")
        expect(hit).to_be_visible()
        expect(hit.locator(".gone")).to_be_visible()
        expect(hit.locator("a")).to_have_count(0)
        assert page.evaluate("window.hacked") is None
        keep_screenshot(page, "search-dead")
        site.client.command(
            "ALTER TABLE sample DELETE WHERE id = 70000001", settings={"mutations_sync": 1}
        )

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
        expect(frame.get_by_role("button", name="Backfill failed and missing")).to_be_hidden()
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
