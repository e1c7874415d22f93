from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from laion.datasets import Profile, load_profile
from laion.errors import (
    BadNpy,
    BadSource,
    LaionError,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)
from laion.shards import ROLES
from laion.sources import (
    base_urls,
    file_exists,
    locate_source,
    read_dimension,
)
from tests.shard_files import DIMENSION, path_of, write_little_shard
from tests.unit.mirrors import Mirror, answer, send_part, stall_after, unused_url

LAION = load_profile("laion400m")
CLIP_RETRIEVAL = load_profile("clip_retrieval")
SECRET = "s3cr3t"
TIMEOUT_S = 10
SHORT_TIMEOUT_S = 0.2


def put_files(directory: Path, *paths: str) -> None:
    for path in paths:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).touch()


def put_shard(directory: Path, profile: Profile, layout: int, shard: int, digits: int = 1) -> None:
    put_files(directory, *profile.layouts[layout].paths(shard, digits).values())


class TestBaseUrls:
    def test_the_given_ones_are_tried_in_order(self) -> None:
        given = "https://a.example/x/, file:///data"

        assert base_urls(LAION, given) == ["https://a.example/x", "file:///data"]

    def test_without_any_the_datasets_own_are_tried(self) -> None:
        assert base_urls(LAION, "") == list(LAION.sources)

    def test_a_dataset_without_its_own_needs_one(self) -> None:
        with pytest.raises(BadSource, match="file:///data/laion"):
            base_urls(CLIP_RETRIEVAL, " , ")

    def test_the_samples_own_comes_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAION_SAMPLE_SOURCE", "http://127.0.0.1:9000/")

        assert base_urls(load_profile("sample"), "") == ["http://127.0.0.1:9000"]

    def test_a_variable_that_is_not_set_is_no_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LAION_SAMPLE_SOURCE", raising=False)

        with pytest.raises(BadSource, match="no source of its own"):
            base_urls(load_profile("sample"), "")

    @pytest.mark.parametrize("source", ["/data/laion", "ftp://host/x", "laion", "http//host"])
    def test_another_kind_of_url_is_refused(self, source: str) -> None:
        with pytest.raises(BadSource, match=r"must start with http://, https:// or file:///"):
            base_urls(LAION, source)

    @pytest.mark.parametrize(
        "source", [f"ftp://me:{SECRET}@host/x", f"https://me:{SECRET}@[half/x"]
    )
    def test_a_refused_url_is_shown_without_its_password(self, source: str) -> None:
        with pytest.raises(BadSource) as caught:
            base_urls(LAION, source)
        assert SECRET not in str(caught.value)


class TestLayouts:
    @pytest.mark.parametrize("layout", range(len(LAION.layouts)))
    def test_each_layout_of_the_dataset_is_recognised(
        self, mirror: Mirror, shard_directory: Path, layout: int
    ) -> None:
        put_shard(shard_directory, LAION, layout, shard=3)

        source = locate_source(LAION, mirror.url, 3)

        assert source.layout == LAION.layouts[layout]

    @pytest.mark.parametrize("digits", CLIP_RETRIEVAL.digits)
    def test_each_zero_padding_is_recognised(
        self, mirror: Mirror, shard_directory: Path, digits: int
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard=0, digits=digits)

        source = locate_source(CLIP_RETRIEVAL, mirror.url, 0)

        assert (
            source.urls(12)["metadata"] == f"{mirror.url}/metadata/metadata_{12:0{digits}d}.parquet"
        )

    def test_a_padding_narrower_than_the_first_shard_is_not_asked_for_twice(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard=123, digits=4)

        locate_source(CLIP_RETRIEVAL, mirror.url, 123)

        assert len(mirror.requests) == len(set(mirror.requests))

    def test_a_directory_of_this_machine_is_a_source(self, shard_directory: Path) -> None:
        put_shard(shard_directory, LAION, 1, shard=0)

        source = locate_source(LAION, shard_directory.as_uri(), 0)

        assert source.urls(0)["image_embedding"] == (
            f"{shard_directory.as_uri()}/images/img_emb_0.npy"
        )

    def test_a_directory_with_a_space_in_its_name_is_a_source(self, tmp_path: Path) -> None:
        put_shard(tmp_path / "my files", LAION, 0, shard=0)

        assert locate_source(LAION, (tmp_path / "my files").as_uri(), 0).layout == LAION.layouts[0]

    def test_a_layout_with_one_file_missing_does_not_count(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)
        (shard_directory / "text_emb/text_emb_0.npy").unlink()

        with pytest.raises(SourceMissing):
            locate_source(LAION, mirror.url, 0)


class TestMirrors:
    def test_the_first_that_has_the_shard_is_used(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        source = locate_source(LAION, f"{shard_directory.as_uri()},{mirror.url}", 0)

        assert source.base == shard_directory.as_uri()
        assert mirror.requests == []

    def test_the_next_is_used_when_one_does_not_answer(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        assert locate_source(LAION, f"{unused_url()},{mirror.url}", 0).base == mirror.url

    def test_the_next_is_used_when_one_refuses(self, mirror: Mirror, shard_directory: Path) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)
        mirror.fail("img_emb_0.npy", answer(403), "HEAD")

        source = locate_source(LAION, f"{mirror.url},{shard_directory.as_uri()}", 0)

        assert source.base == shard_directory.as_uri()

    def test_the_next_is_used_when_one_lacks_the_shard(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        assert locate_source(LAION, f"{tmp_path.as_uri()},{mirror.url}", 0).base == mirror.url

    def test_no_answer_is_told_before_a_missing_file(self, mirror: Mirror) -> None:
        with pytest.raises(SourceUnreachable):
            locate_source(LAION, f"{mirror.url},{unused_url()}", 0)

    def test_a_shard_that_none_has_is_told_with_what_was_tried(self, mirror: Mirror) -> None:
        with pytest.raises(SourceMissing, match=r"shard 00003.*'laion400m'") as caught:
            locate_source(LAION, mirror.url, 3)
        assert f"{mirror.url}/images/img_emb_3.npy" in str(caught.value)


class TestFileExists:
    def test_a_file_that_is_served_exists(self, mirror: Mirror, shard_directory: Path) -> None:
        put_files(shard_directory, "a.npy")

        assert file_exists(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)
        assert not file_exists(f"{mirror.url}/b.npy", timeout_s=TIMEOUT_S)

    def test_a_file_of_this_machine_exists_and_a_directory_does_not(self, tmp_path: Path) -> None:
        put_files(tmp_path, "a.npy")

        assert file_exists((tmp_path / "a.npy").as_uri(), timeout_s=TIMEOUT_S)
        assert not file_exists(tmp_path.as_uri(), timeout_s=TIMEOUT_S)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_is_typed(self, mirror: Mirror, status: int) -> None:
        mirror.fail("a.npy", answer(status), "HEAD")

        with pytest.raises(SourceRefused, match=f"HTTP {status}.*credentials"):
            file_exists(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_failing_server_counts_as_unreachable(self, mirror: Mirror, status: int) -> None:
        mirror.fail("a.npy", answer(status), "HEAD")

        with pytest.raises(SourceUnreachable, match=f"HTTP {status}"):
            file_exists(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)

    def test_a_refused_connection_is_typed_and_says_why(self) -> None:
        with pytest.raises(SourceUnreachable, match="Connection refused"):
            file_exists(f"{unused_url()}/a.npy", timeout_s=TIMEOUT_S)

    def test_a_server_that_does_not_answer_in_time_is_unreachable(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", lambda handler: handler.mirror.closing.wait(TIMEOUT_S), "HEAD")

        with pytest.raises(SourceUnreachable, match="timed out"):
            file_exists(f"{mirror.url}/a.npy", timeout_s=SHORT_TIMEOUT_S)


class TestCredentials:
    @pytest.mark.parametrize("status", [401, 404, 500])
    def test_no_message_about_an_answer_tells_them(self, mirror: Mirror, status: int) -> None:
        mirror.fail("", answer(status), "HEAD")

        with pytest.raises(LaionError) as caught:
            locate_source(LAION, mirror.url_with(f"me:{SECRET}@"), 0)
        assert "***@127.0.0.1" in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1:1", "", "host:port", "exa mple"])
    def test_no_message_about_a_failed_connection_tells_them(self, host: str) -> None:
        with pytest.raises(LaionError) as caught:
            file_exists(f"http://me:{SECRET}@{host}/x", timeout_s=TIMEOUT_S)
        assert SECRET not in str(caught.value)


@pytest.fixture
def ranged_url(tmp_path: Path) -> Iterator[str]:
    """A directory with `a.npy` served by the sample's server, which knows Range."""
    code = "import sys; from laion.sample.server import serve; serve(sys.argv[1], 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().strip().rstrip("/")
        process.terminate()


class TestDimension:
    def test_it_is_read_from_a_file_of_this_machine(self, shard_directory: Path) -> None:
        write_little_shard(shard_directory)

        url = path_of(shard_directory, "image_embedding").as_uri()

        assert read_dimension(url, timeout_s=TIMEOUT_S) == DIMENSION

    def test_it_is_read_over_http_from_a_server_with_range(
        self, ranged_url: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "a.npy", np.ones((5000, 24), np.float16))

        assert read_dimension(f"{ranged_url}/a.npy", timeout_s=TIMEOUT_S) == 24

    def test_it_is_read_over_http_from_a_server_without_range(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        np.save(shard_directory / "a.npy", np.ones((5000, 24), np.float16))

        assert read_dimension(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S) == 24

    def test_only_the_head_of_the_file_is_asked_for(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        np.save(shard_directory / "a.npy", np.ones((5000, 24), np.float16))

        read_dimension(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)

        assert mirror.headers[-1]["Range"] == "bytes=0-16383"

    def test_a_missing_file_is_typed(self, mirror: Mirror, tmp_path: Path) -> None:
        for url in (f"{mirror.url}/no.npy", (tmp_path / "no.npy").as_uri()):
            with pytest.raises(SourceMissing, match=r"no\.npy"):
                read_dimension(url, timeout_s=TIMEOUT_S)

    def test_a_page_that_is_no_npy_file_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", send_part(b"<html>Welcome</html>", announced=None))

        with pytest.raises(BadNpy, match=r"a\.npy is no npy file"):
            read_dimension(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)

    def test_a_connection_that_breaks_off_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", send_part(b"\x93NUMPY", announced=5000))

        with pytest.raises(SourceUnreachable, match="broke off"):
            read_dimension(f"{mirror.url}/a.npy", timeout_s=TIMEOUT_S)

    def test_a_connection_that_stalls_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", stall_after(b"\x93NUMPY", announced=5000))

        with pytest.raises(SourceUnreachable, match="timed out"):
            read_dimension(f"{mirror.url}/a.npy", timeout_s=SHORT_TIMEOUT_S)


def test_every_role_has_a_url(shard_directory: Path) -> None:
    put_shard(shard_directory, LAION, 0, shard=0)

    assert set(locate_source(LAION, shard_directory.as_uri(), 0).urls(0)) == set(ROLES)
