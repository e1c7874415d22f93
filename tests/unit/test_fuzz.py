"""Foreign text and bytes of any kind: a right answer or a typed error, and nothing else."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files

import numpy as np
import pytest
import requests
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import Headers

from laion.datasets import Profile, parse_profile
from laion.embedded.exception import DBError
from laion.embedded.request import read_parameters
from laion.embedded.statement import find_format, first_keyword, split_insert, tokenize
from laion.encoders.decode import FORMATS, decode_image
from laion.errors import BadImage, BadNpy, BadProfile, BadShards
from laion.npy import read_npy_header
from laion.shards import MAX_SHARD, SHARDS_PATTERN, format_shards, parse_shards
from laion.udf.rowbinary import encode_varuint
from laion.udf.worker import Encoder, serve
from laion.urls import hide_credentials, is_local, url_scheme
from laion.web.app import Backend, create_app
from laion.web.security import OWN_REQUEST_HEADER
from tests.conftest import FreshDatabase
from tests.embedded_server import EmbeddedServer
from tests.fuzzing import fuzz
from tests.unit.clickhouse.shard_steps import TABLE, make_tables

PROFILE = files("laion").joinpath("profiles", "laion400m.toml").read_text()
STATEMENTS = [
    b"INSERT INTO t (a, b) SETTINGS x = 1 FORMAT Native\n\0\1",
    b"INSERT INTO `t` VALUES (1, 'a''b'), (2, $tag$x$tag$)",
    b"WITH x AS (SELECT 1) SELECT * FROM x /* c */ -- d\nFORMAT JSON",
]
# Without `$`: whether a tag begins a heredoc does depend on what follows.
LEXICAL = st.lists(st.sampled_from([b"%c" % c for c in b"'\"`\\/*-#!.,;()a1 \n"]), max_size=20).map(
    b"".join
)


def mutated(bodies: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return bytes of one of `bodies` with pieces replaced, cut out and put in."""

    @st.composite
    def mutate(draw: st.DrawFn) -> bytes:
        body = bytearray(draw(st.sampled_from(bodies)))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(body)))
            end = min(len(body), start + draw(st.integers(0, 12)))
            body[start:end] = draw(st.binary(max_size=12))
        return bytes(body)

    return mutate()


class TestShards:
    @fuzz(500)
    @given(
        st.one_of(
            st.text(max_size=40),
            st.text("0123456789-, ", max_size=40),
            st.from_regex(SHARDS_PATTERN),
        )
    )
    def test_numbers_or_a_refusal(self, text: str) -> None:
        try:
            numbers = parse_shards(text)
        except BadShards:
            return
        assert numbers == sorted(set(numbers))
        assert 0 <= numbers[0] <= numbers[-1] <= MAX_SHARD

    @fuzz(300)
    @given(st.sets(st.integers(0, MAX_SHARD), min_size=1, max_size=60))
    def test_what_is_written_is_read(self, numbers: set[int]) -> None:
        text = format_shards(list(numbers))

        assert re.match(SHARDS_PATTERN, text)
        assert parse_shards(text) == sorted(numbers)


class TestProfiles:
    @fuzz(300)
    @given(st.one_of(st.text(max_size=200).map(str.encode), mutated([PROFILE.encode()])))
    def test_a_profile_or_a_refusal(self, text: bytes) -> None:
        try:
            profile = parse_profile("fuzzed", text.decode(errors="replace"))
        except BadProfile as error:
            refusal = str(error)
            profile = None
        if profile is None:
            assert "fuzzed.toml" in refusal
            return
        assert isinstance(profile, Profile)
        if profile.shards is not None:
            assert all(0 <= shard <= MAX_SHARD for shard in profile.all_shards())


class TestNpy:
    header = io.BytesIO()
    np.save(header, np.zeros((3, 4), np.float16))

    @fuzz(500)
    @given(st.one_of(st.binary(max_size=200), mutated([header.getvalue()])))
    def test_a_header_or_a_refusal(self, data: bytes) -> None:
        try:
            header = read_npy_header(io.BytesIO(data), "fuzzed.npy")
        except BadNpy as error:
            refusal = str(error)
            header = None
        if header is None:
            assert "fuzzed.npy" in refusal
            return
        assert all(size >= 0 for size in header.shape)


class TestUrls:
    @fuzz(500)
    @given(st.text(max_size=80))
    @example("http://[::1")
    def test_any_text(self, text: str) -> None:
        assert is_local(text) == (url_scheme(text) == "file")
        hide_credentials(text)

    @fuzz(300)
    @given(
        st.sampled_from(["http", "https", "s3"]),
        st.text("abcXYZ019._~!$&()*+,;=:%@-", min_size=6, max_size=20),
        st.text("PQR/", max_size=20),
    )
    def test_a_password_never_shows(self, scheme: str, secret: str, path: str) -> None:
        url = f"{scheme}://user:{secret}@host/{path}?signature={secret}"

        assert secret not in hide_credentials(url)
        assert secret not in hide_credentials(f"cannot fetch {url}, then {url}: refused")


class TestPictures:
    @staticmethod
    def pictures() -> list[bytes]:
        """The same noise in every format, and with a palette that has transparency."""
        colours = np.random.default_rng(0).integers(0, 256, (12, 12, 4), dtype=np.uint8)
        image = Image.fromarray(colours)
        files = []
        for kind in FORMATS:
            file = io.BytesIO()
            image.convert("RGB").save(file, kind)
            files.append(file.getvalue())
        image.quantize(16).save(file := io.BytesIO(), "PNG")
        return [*files, file.getvalue()]

    @fuzz(300)
    @given(mutated(pictures()))
    def test_a_picture_or_a_refusal(self, data: bytes) -> None:
        try:
            image = decode_image(io.BytesIO(data), max_pixels=1000)
        except BadImage:
            return
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= 1000


class TestUdfFrames:
    """What ClickHouse sends to a function: the number of rows, then as many strings."""

    @staticmethod
    def encoder() -> Encoder:
        def prepare(text: str) -> str:
            if "x" in text:
                raise ValueError("no x")
            return text

        def encode(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            if any("y" in text for text in texts):
                raise ValueError("no y")
            return np.ones((len(texts), 2), np.float32)

        return Encoder(prepare, encode, window_rows=3)  # type: ignore[arg-type]

    @fuzz(300)
    @given(st.lists(st.lists(st.binary(max_size=20), max_size=9), max_size=4))
    def test_every_row_gets_one_result(self, chunks: list[list[bytes]]) -> None:
        frames = b"".join(
            b"%d\n" % len(rows) + b"".join(encode_varuint(len(row)) + row for row in rows)
            for rows in chunks
        )
        answered = io.BytesIO()

        serve(self.encoder(), io.BytesIO(frames), answered, "fuzzed")

        assert read_arrays(answered.getvalue()) == sum(map(len, chunks))

    @fuzz(300)
    @given(st.one_of(st.binary(max_size=60), mutated([b"2\n\x01a\x02bc", b"1\n\x85\x01hello"])))
    def test_broken_frames_end_it_with_whole_results_only(self, data: bytes) -> None:
        answered = io.BytesIO()
        with suppress(EOFError, ValueError, OverflowError, MemoryError):
            serve(self.encoder(), io.BytesIO(data), answered, "fuzzed")
        read_arrays(answered.getvalue())


def read_arrays(data: bytes) -> int:
    """Return how many arrays of two or no floats these bytes are."""
    count = at = 0
    while at < len(data):
        assert data[at] in (0, 2)
        at += 1 + 4 * data[at]
        count += 1
    assert at == len(data)
    return count


class TestEmbedded:
    @fuzz(500)
    @given(st.one_of(st.binary(max_size=200), mutated(STATEMENTS)))
    def test_any_bytes_can_be_taken_apart(self, text: bytes) -> None:
        for token in tokenize(text):
            assert text[token.start : token.end] == token.text
        first_keyword(text)
        find_format(text)
        insert = split_insert(text)
        if insert is not None:
            assert 0 < insert.data_start <= len(text)

    @fuzz(500)
    @given(LEXICAL, LEXICAL)
    def test_a_token_does_not_depend_on_what_follows(self, text: bytes, more: bytes) -> None:
        """So none is begun in vain and read again in another way: each takes but its own length."""
        ended = [token for token in tokenize(text) if token.end < len(text)]

        assert list(tokenize(text + more))[: len(ended)] == ended

    @fuzz(300)
    @given(
        st.lists(
            st.tuples(
                st.one_of(
                    st.text(max_size=12),
                    st.sampled_from(["query", "session_timeout", "compress", "role", "param_x"]),
                ),
                st.text(max_size=12),
            ),
            max_size=5,
        )
    )
    def test_parameters_or_a_refusal(self, pairs: list[tuple[str, str]]) -> None:
        with suppress(DBError):
            read_parameters(pairs, Headers({}))

    @fuzz(60)
    @given(
        method=st.sampled_from(["GET", "POST", "HEAD"]),
        params=st.dictionaries(
            st.sampled_from(
                ["query", "database", "default_format", "query_id", "session_id", "param_a",
                 "session_timeout", "max_block_size", "enable_http_compression", "odd"]
            ),
            st.text(max_size=20),
            max_size=4,
        ),
        headers=st.dictionaries(
            st.sampled_from(
                ["Content-Encoding", "Content-Type", "Accept-Encoding", "X-ClickHouse-Format",
                 "X-ClickHouse-Database"]
            ),
            st.text("abcdefgzip/;=, 0123456789-", max_size=20).map(str.strip),
            max_size=3,
        ),
        body=st.one_of(st.binary(max_size=200), mutated(STATEMENTS)),
    )  # fmt: skip
    def test_the_server_answers_every_request(
        self,
        clickhouse_server: EmbeddedServer,
        method: str,
        params: dict[str, str],
        headers: dict[str, str],
        body: bytes,
    ) -> None:
        answer = requests.request(
            method,
            clickhouse_server.url,
            params=params,
            headers=headers,
            data=body,
            auth=("default", clickhouse_server.password),
            timeout=30,
        )

        if answer.status_code >= 400:
            assert "X-ClickHouse-Exception-Code" in answer.headers, answer.text[:300]
        ping = requests.get(f"{clickhouse_server.url}/ping", timeout=30)
        assert ping.text == "Ok.\n"


ROUTES = (
    "/shards", "/board", "/board/changes", "/board/shards/{}", "/board/state", "/query",
    "/search", "/search/results", "/static/{}",
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(fresh_database: FreshDatabase) -> Iterator[TestClient]:
    with fresh_database() as client:
        make_tables(client)

        @contextmanager
        def lend() -> Iterator[object]:
            yield client

        backend = Backend(
            clickhouse=lend,  # type: ignore[arg-type]
            may_read=lambda: None,
            may_trigger=lambda: True,
            active_runs=set,
            source_urls=lambda dag_id, run_id, shard: {},
        )
        with TestClient(create_app(backend), raise_server_exceptions=True) as browser:
            yield browser


class TestPages:
    @fuzz(150)
    @given(
        route=st.sampled_from(ROUTES),
        part=st.one_of(st.text("abc0123456789.%/-", min_size=1, max_size=12), st.just("0")),
        params=st.dictionaries(
            st.sampled_from(
                ["table", "dataset", "since", "id", "words", "row", "by", "column", "limit", "odd"]
            ),
            st.one_of(
                st.text(max_size=20),
                st.integers(-(2**65), 2**65).map(str),
                st.sampled_from([TABLE, "laion400m", "0", "exact", "index", "image_embedding"]),
            ),
            max_size=5,
        ),
    )
    def test_no_request_is_too_odd(
        self, pages: TestClient, route: str, part: str, params: dict[str, str]
    ) -> None:
        answer = pages.get(route.format(part), params=params)

        assert answer.status_code < 500 or "error" in answer.json(), answer.text[:300]

    @fuzz(100)
    @given(
        body=st.one_of(st.binary(max_size=100), mutated([b'{"table": "little", "shards": "0"}']))
    )
    def test_no_body_is_too_odd(self, pages: TestClient, body: bytes) -> None:
        headers = {"Content-Type": "application/json", OWN_REQUEST_HEADER: "1"}
        answer = pages.post("/board/backfill", content=body, headers=headers)

        assert answer.status_code < 500 or "error" in answer.json(), answer.text[:300]
