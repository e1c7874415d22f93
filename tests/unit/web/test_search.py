from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from fastapi.testclient import TestClient
from PIL import Image

from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.clickhouse.search_table import lease
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.search import Target
from laion.encoders.model import MANIFEST, PREPROCESSOR, file_sha256
from laion.encoders.text import load_text_encoder
from laion.errors import ClickHouseBusy
from laion.vectors import clip_dimensions
from laion.web.app import Backend, create_app
from laion.web.encoding import MAX_PICTURE_BYTES
from laion.web.search import PictureMirror, SearchRequest, _search
from laion.web.security import OWN_REQUEST_HEADER
from tests.conftest import FreshDatabase
from tests.models import DIMENSION, SIDE, write_model, write_preprocessor
from tests.unit.clickhouse.shard_steps import ORIGIN, build_search, event
from tests.unit.web.conftest import Airflow

TABLE = "pictures"
DATASET = "sample"
ROWS = 200
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
OWN = {OWN_REQUEST_HEADER: "1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny model for the dataset's name."""
    directory = tmp_path_factory.mktemp("models")
    write_model(directory / DATASET)
    return directory


@pytest.fixture(scope="module")
def searched(fresh_database: FreshDatabase) -> Iterator[Client]:
    """A table of 200 rows with its search table; row 3 is hostile, row 4's similarity unknown."""
    with fresh_database() as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "SETTLE_S", 0.05)
        ensure_ledger(client)
        ensure_base_table(client, TABLE, TableIdentity(DATASET, clip_dimensions(DIMENSION)))
        client.insert(TABLE, _rows(), column_names=list(_COLUMNS))
        published = event(0, "publish", "done", rows_loaded=ROWS)
        ledger = Ledger(client)
        ledger.append([replace(published, table=TABLE)])
        ledger.record_run(ORIGIN, table=TABLE, dataset=DATASET, source="", shards="0", params={})
        build_search(client, IndexOptions(quantization="f32", parameters={"m": 16}), table=TABLE)
        yield client


_COLUMNS = (
    *("shard", "id", "url", "caption", "NSFW", "LICENSE", "similarity", "width", "height"),
    *("image_embedding", "text_embedding"),
)


def _rows() -> list[list[Any]]:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = []
    for i, vector in enumerate(vectors.tolist()):
        caption = HOSTILE if i == 3 else f"picture {i}"
        flag = ("UNLIKELY", "UNSURE", "NSFW", "")[i % 4]
        similarity = float("nan") if i == 4 else 0.2 + i / 1000
        url = f"https://gone.example/{i}.jpg"
        rows.append([0, i, url, caption, flag, "?", similarity, 100 + i, 90, vector, vector])
    return rows


@pytest.fixture
def pages(searched: Client, airflow: Airflow, models: Path) -> Iterator[TestClient]:
    with TestClient(make_app(searched, airflow, str(models)), raise_server_exceptions=False) as it:
        yield it


def make_app(client: Client, airflow: Airflow, models_dir: str) -> Any:
    @contextmanager
    def lend() -> Iterator[Client]:
        yield client

    return create_app(
        Backend(
            clickhouse=lend,
            may_read=airflow.may_read,
            may_trigger=airflow.may_trigger,
            active_runs=frozenset,
            source_urls=lambda dag_id, run_id, shard: {},
            models_dir=models_dir,
            pictures_mirror="https://gone.example/=http://127.0.0.1:1/",
        )
    )


def ask(pages: TestClient, **query: Any) -> dict[str, Any]:
    answer = pages.get("/search/results", params={"table": TABLE, "dataset": DATASET, **query})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def picture_file(size: tuple[int, int] = (30, 20)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (200, 30, 60)).save(content, "PNG")
    return content.getvalue()


def post(pages: TestClient, body: bytes, **more: Any) -> Any:
    query = {"table": TABLE, "dataset": DATASET}
    return pages.post("/search/results", params=query, content=body, headers={**OWN, **more})


class TestWords:
    def test_without_the_sql_function_the_dataset_s_model_encodes_them(
        self, pages: TestClient, models: Path
    ) -> None:
        found = ask(pages, words="a cat", method="exact", limit=5)

        vector = load_text_encoder(models / DATASET).encode(["a cat"])[0]
        stored = np.array([row[-1] for row in _rows()])
        assert [hit["id"] for hit in found["hits"]] == np.argsort(-(stored @ vector))[:5].tolist()
        assert "API server" in found["encoded_by"]

    def test_a_dataset_without_a_model_cannot_be_searched_by_words(self, pages: TestClient) -> None:
        query = {"table": TABLE, "dataset": "clip_retrieval", "words": "a cat"}

        answer = pages.get("/search/results", params=query)

        assert answer.status_code == 501
        assert "search by one of its rows" in answer.json()["error"]

    def test_where_no_models_are_it_says_which_setting_is_missing(
        self, searched: Client, airflow: Airflow
    ) -> None:
        with TestClient(make_app(searched, airflow, "")) as pages:
            query = {"table": TABLE, "dataset": DATASET, "words": "a cat"}
            answer = pages.get("/search/results", params=query)

        assert answer.status_code == 501
        assert "LAION_MODELS_DIR" in answer.json()["error"]

    def test_nothing_to_search_for_is_refused(self, pages: TestClient) -> None:
        answer = pages.get("/search/results", params={"table": TABLE, "words": "  "})

        assert answer.status_code == 400


class TestMethods:
    def test_both_are_compared_row_by_row(self, pages: TestClient) -> None:
        found = ask(pages, like=7, method="both", limit=10)

        marked = sum(hit["in_exact"] for hit in found["hits"])
        assert found["overlap"] == marked
        assert found["overlap"] >= 9
        assert set(found["runs"]) == {"index", "exact"}
        assert all(run["seconds"] > 0 for run in found["runs"].values())

    def test_more_like_a_row_leaves_the_row_out(self, pages: TestClient) -> None:
        found = ask(pages, like=7, limit=10)

        assert 7 not in {hit["id"] for hit in found["hits"]}

    def test_the_sql_it_shows_finds_the_same_when_it_is_copied(
        self, pages: TestClient, searched: Client
    ) -> None:
        found = ask(pages, words="it's a \\ cat", nsfw=["UNSURE", "NSFW"], limit=6)

        again = searched.query(found["runs"]["index"]["sql"]).result_rows

        assert [row[0] for row in again] == [hit["id"] for hit in found["hits"]]

    def test_a_search_that_took_more_than_it_may_is_not_asked_again(
        self, searched: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        query, asked = searched.query, 0

        def with_little_memory(text: str, **options: Any) -> Any:
            nonlocal asked
            if "text" in options["parameters"]:
                asked += 1
                options["settings"] = {"max_memory_usage": 1}
            return query(text, **options)

        monkeypatch.setattr(searched, "query", with_little_memory)
        words = Target("arrayMap(x -> length({text:String}) / x, range(1, 9))", {"text": "a cat"})

        with pytest.raises(ClickHouseBusy, match="MEMORY_LIMIT_EXCEEDED"):
            _search(searched, SearchRequest(table=TABLE), words, "exact")
        assert asked == 1

    def test_an_unknown_row_is_told(self, pages: TestClient) -> None:
        answer = pages.get("/search/results", params={"table": TABLE, "like": 10**9})

        assert answer.status_code == 404
        assert "no row with id" in answer.json()["error"]


class TestFilters:
    def test_hits_pass_them_all(self, pages: TestClient) -> None:
        found = ask(pages, like=0, nsfw="UNSURE", min_similarity=0.3, min_width=250, limit=20)

        assert found["hits"]
        assert {hit["NSFW"] for hit in found["hits"]} == {"UNSURE"}
        assert all(hit["width"] >= 250 for hit in found["hits"])

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": 1000},
            {"limit": 0},
            {"method": "magic"},
            {"column": "caption, url"},
            {"min_similarity": "nan"},
            {"table": "a`; DROP TABLE x"},
            {"surprise": 1},
            {"words": "x" * 2000},
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, pages: TestClient, query: dict[str, Any]
    ) -> None:
        answer = pages.get("/search/results", params={"table": TABLE, "like": 1, **query})

        assert answer.status_code == 422

    def test_a_column_that_is_no_vector_is_refused_with_those_that_are(
        self, pages: TestClient
    ) -> None:
        answer = pages.get(
            "/search/results", params={"table": TABLE, "like": 1, "column": "caption"}
        )

        assert answer.status_code == 400
        assert "take one of image_embedding, text_embedding" in answer.json()["error"]

    def test_a_value_that_looks_like_sql_stays_a_value(self, pages: TestClient) -> None:
        found = ask(pages, like=1, licenses="?') OR (1=1", limit=5)

        assert found["hits"] == []


class TestHits:
    def test_an_unknown_similarity_is_no_number(self, pages: TestClient) -> None:
        found = ask(pages, like=0, method="exact", limit=100)
        more = ask(pages, like=4, method="exact", limit=100)

        values = {hit["id"]: hit["similarity"] for hit in found["hits"] + more["hits"]}
        assert values.get(4) is None
        assert all(value is not None for row, value in values.items() if row != 4)

    def test_pictures_come_from_the_mirror_where_there_is_one(self, pages: TestClient) -> None:
        hit = ask(pages, like=0, limit=1)["hits"][0]

        assert hit["src"] == f"http://127.0.0.1:1/{hit['id']}.jpg"
        assert hit["url"] == f"https://gone.example/{hit['id']}.jpg"

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//x", ""])
    def test_what_is_no_web_address_is_no_picture(self, url: str) -> None:
        assert PictureMirror.parse("").address(url) == ""

    def test_the_page_itself_holds_no_hit(self, pages: TestClient) -> None:
        assert "alert(" not in pages.get("/search", params={"words": HOSTILE}).text


class TestPictures:
    def test_the_nearest_rows_to_an_uploaded_picture_are_found(self, pages: TestClient) -> None:
        answer = post(pages, picture_file())

        assert answer.status_code == 200
        assert len(answer.json()["hits"]) == 24

    def test_a_page_of_another_origin_cannot_send_one(self, pages: TestClient) -> None:
        query = {"table": TABLE, "dataset": DATASET}

        answer = pages.post("/search/results", params=query, content=picture_file())

        assert answer.status_code == 403

    def test_a_file_that_is_too_large_is_refused_while_it_comes(self, pages: TestClient) -> None:
        sent = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(MAX_PICTURE_BYTES // 2**20 + 1):
                sent += 2**20
                yield bytes(2**20)

        query = {"table": TABLE, "dataset": DATASET}
        answer = pages.post("/search/results", params=query, content=chunks(), headers=OWN)

        assert answer.status_code == 413

    def test_a_model_that_does_not_run_is_an_error_and_not_an_empty_result(
        self, searched: Client, airflow: Airflow, tmp_path: Path
    ) -> None:
        model = write_model(tmp_path / DATASET)
        write_preprocessor(model / PREPROCESSOR, 2 * SIDE)
        manifest = json.loads((model / MANIFEST).read_text())
        manifest["files"][PREPROCESSOR] = file_sha256(model / PREPROCESSOR)
        (model / MANIFEST).write_text(json.dumps(manifest))

        app = make_app(searched, airflow, str(tmp_path))
        with TestClient(app, raise_server_exceptions=False) as pages:
            answer = post(pages, picture_file())

        assert answer.status_code == 503
        assert set(answer.json()) == {"error"}

    @pytest.mark.parametrize(
        "body", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + bytes(100)]
    )
    def test_what_is_no_picture_is_refused(self, pages: TestClient, body: bytes) -> None:
        answer = post(pages, body)

        assert answer.status_code == 400
        assert "no picture" in answer.json()["error"]


def test_a_table_without_a_search_table_says_what_to_do(pages: TestClient) -> None:
    answer = pages.get("/search/results", params={"table": "nothing", "like": 1})

    assert answer.status_code == 404
    assert "build_index" in answer.json()["error"]


def test_the_page_offers_the_tables_that_can_be_searched(pages: TestClient) -> None:
    choice = f'{{"table":"{TABLE}","dataset":"{DATASET}"'
    vectors = '"vectors":["image_embedding","text_embedding"]}'
    assert f'"tables":[{choice},{vectors}]' in pages.get("/search").text
