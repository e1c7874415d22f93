from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from laion.datasets import load_profile
from laion.download import DownloadOptions
from laion.errors import (
    BadNpy,
    BadSource,
    LaionError,
    SourceMissing,
    SourceUnreachable,
)
from laion.sources import (
    PROBED,
    base_urls,
    locate_sources,
    read_dimension,
)
from tests.shard_files import DIMENSION, ROLES, path_of, write_little_shard
from tests.unit.mirrors import Mirror, answer, send_part, stall_after, unused_url
from tests.unit.source_files import put_shard

LAION = load_profile("laion400m")
CLIP_RETRIEVAL = load_profile("clip_retrieval")
SECRET = "s3cr3t"
IMPATIENT = DownloadOptions(read_timeout_s=0.2)


class TestBaseUrls:
    def test_the_given_ones_are_tried_in_order(self) -> None:
        given = "https://a.example/x/, file:///data"

        assert [url for url, _ in base_urls(LAION, given)] == [
            "https://a.example/x/",
            "file:///data",
        ]

    def test_without_any_the_datasets_own_are_tried(self) -> None:
        assert base_urls(LAION, "") == [(m.url, (m.layout,)) for m in LAION.mirrors]

    def test_a_dataset_without_its_own_needs_one(self) -> None:
        with pytest.raises(BadSource, match="file:///data/laion"):
            base_urls(CLIP_RETRIEVAL, " , ")

    def test_the_samples_own_comes_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAION_SAMPLE_SOURCE", "http://127.0.0.1:9000/")

        assert [url for url, _ in base_urls(load_profile("sample"), "")] == [
            "http://127.0.0.1:9000/"
        ]

    def test_a_variable_that_is_not_set_is_no_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LAION_SAMPLE_SOURCE", raising=False)

        with pytest.raises(BadSource, match="no source of its own"):
            base_urls(load_profile("sample"), "")

    @pytest.mark.parametrize("source", ["/data/laion", "ftp://host/x", "laion", "http//host"])
    def test_another_kind_of_url_is_refused(self, source: str) -> None:
        with pytest.raises(
            BadSource, match=r"must start with http://, https://, s3:// or file:///"
        ):
            base_urls(LAION, source)

    @pytest.mark.parametrize(
        "source", [f"ftp://me:{SECRET}@host/x", f"https://me:{SECRET}@[half/x"]
    )
    def test_a_refused_url_is_shown_without_its_password(self, source: str) -> None:
        with pytest.raises(BadSource) as caught:
            base_urls(LAION, source)
        assert SECRET not in str(caught.value)


class TestLayouts:
    @pytest.mark.parametrize("layout", range(len(LAION.known_layouts)))
    def test_each_layout_of_the_dataset_is_recognised(
        self, mirror: Mirror, shard_directory: Path, layout: int
    ) -> None:
        put_shard(shard_directory, LAION, layout, shard=3)

        source = locate_sources(LAION, mirror.url, [3])[0]

        assert source.layout == LAION.known_layouts[layout]

    @pytest.mark.parametrize("digits", CLIP_RETRIEVAL.digits)
    def test_each_zero_padding_is_recognised(
        self, mirror: Mirror, shard_directory: Path, digits: int
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard=0, digits=digits)

        source = locate_sources(CLIP_RETRIEVAL, mirror.url, [0])[0]

        assert (
            source.urls(12)["metadata"] == f"{mirror.url}/metadata/metadata_{12:0{digits}d}.parquet"
        )

    def test_a_padding_narrower_than_the_first_shard_is_not_asked_for_twice(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard=123, digits=4)

        locate_sources(CLIP_RETRIEVAL, mirror.url, [123])

        assert len(mirror.requests) == len(set(mirror.requests))

    def test_a_directory_of_this_machine_is_a_source(self, shard_directory: Path) -> None:
        put_shard(shard_directory, LAION, 1, shard=0)

        source = locate_sources(LAION, shard_directory.as_uri(), [0])[0]

        assert source.urls(0)["image_embedding"] == (
            f"{shard_directory.as_uri()}/images/img_emb_0.npy"
        )

    def test_a_directory_with_a_space_in_its_name_is_a_source(self, tmp_path: Path) -> None:
        put_shard(tmp_path / "my files", LAION, 0, shard=0)

        assert (
            locate_sources(LAION, (tmp_path / "my files").as_uri(), [0])[0].layout
            == LAION.known_layouts[0]
        )

    def test_a_layout_with_one_file_missing_does_not_count(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)
        (shard_directory / "text_emb/text_emb_0.npy").unlink()

        with pytest.raises(SourceMissing):
            locate_sources(LAION, mirror.url, [0])


class TestMirrors:
    def test_the_first_that_has_the_shard_is_used(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        source = locate_sources(LAION, f"{shard_directory.as_uri()},{mirror.url}", [0])[0]

        assert source.base == shard_directory.as_uri()

    def test_the_next_is_used_when_one_does_not_answer(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        assert locate_sources(LAION, f"{unused_url()},{mirror.url}", [0])[0].base == mirror.url

    def test_the_next_is_used_when_one_refuses(self, mirror: Mirror, shard_directory: Path) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)
        mirror.fail("img_emb_0.npy", answer(403), "HEAD")

        source = locate_sources(LAION, f"{mirror.url},{shard_directory.as_uri()}", [0])[0]

        assert source.base == shard_directory.as_uri()

    def test_the_next_is_used_when_one_lacks_the_shard(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)

        assert locate_sources(LAION, f"{tmp_path.as_uri()},{mirror.url}", [0])[0].base == mirror.url

    def test_every_one_that_has_the_shard_is_kept_in_order(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, LAION, 0, shard=0)
        put_shard(tmp_path / "second", LAION, 1, shard=0)
        second = (tmp_path / "second").as_uri()

        sources = locate_sources(LAION, f"{mirror.url},{unused_url()},{second}", [0])

        assert [(s.base, s.layout) for s in sources] == [
            (mirror.url, LAION.known_layouts[0]),
            (second, LAION.known_layouts[1]),
        ]

    def test_a_mirror_of_the_profile_is_asked_for_its_own_layout_only(
        self, mirror: Mirror, shard_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAION_SAMPLE_SOURCE", mirror.url)
        sample = load_profile("sample")
        put_shard(shard_directory, sample, 0, shard=0)

        locate_sources(sample, "", [0])

        assert len(mirror.requests) == 3

    def test_no_answer_is_told_before_a_missing_file(self, mirror: Mirror) -> None:
        with pytest.raises(SourceUnreachable):
            locate_sources(LAION, f"{mirror.url},{unused_url()}", [0])

    def test_one_that_lacks_the_first_shard_is_found_by_the_next(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 3, digits=4)
        (shard_directory / "metadata" / "metadata_0003.parquet").unlink()
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 5, digits=4)
        put_shard(tmp_path / "second", CLIP_RETRIEVAL, 0, 3)
        second = (tmp_path / "second").as_uri()

        found = locate_sources(CLIP_RETRIEVAL, f"{mirror.url},{second}", [3, 5, 12345])

        assert [(place.base, place.digits, place.found_by) for place in found] == [
            (mirror.url, 4, 5),
            (second, 1, 3),
        ]

    def test_shards_that_none_has_are_named_and_only_so_many_are_looked_for(
        self, mirror: Mirror
    ) -> None:
        with pytest.raises(SourceMissing, match=r"shards 0,7: the source has none of them whole"):
            locate_sources(LAION, mirror.url, [0, 7])
        with pytest.raises(
            SourceMissing, match=rf"shards 0-{PROBED - 1} \(the first of 500\): the"
        ):
            locate_sources(LAION, mirror.url, range(500))

    def test_a_shard_that_none_has_is_told_with_what_was_tried(self, mirror: Mirror) -> None:
        with pytest.raises(SourceMissing, match=r"shard 00003.*'laion400m'") as caught:
            locate_sources(LAION, mirror.url, [3])
        assert f"{mirror.url}/images/img_emb_3.npy" in str(caught.value)


class TestCredentials:
    @pytest.mark.parametrize("status", [401, 404, 500])
    def test_no_message_about_an_answer_tells_them(self, mirror: Mirror, status: int) -> None:
        mirror.fail("", answer(status), "HEAD")

        with pytest.raises(LaionError) as caught:
            locate_sources(LAION, mirror.url_with(f"me:{SECRET}@"), [0])
        assert "***@127.0.0.1" in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1:1", "", "host:port", "exa mple"])
    def test_no_message_about_a_failed_connection_tells_them(self, host: str) -> None:
        with pytest.raises(LaionError) as caught:
            locate_sources(LAION, f"http://me:{SECRET}@{host}/x", [0])
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

        assert read_dimension(url) == DIMENSION

    def test_it_is_read_over_http_from_a_server_with_range(
        self, ranged_url: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "a.npy", np.ones((5000, 24), np.float16))

        assert read_dimension(f"{ranged_url}/a.npy") == 24

    def test_it_is_read_over_http_from_a_server_without_range(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        np.save(shard_directory / "a.npy", np.ones((5000, 24), np.float16))

        assert read_dimension(f"{mirror.url}/a.npy") == 24

    def test_only_the_head_of_the_file_is_asked_for(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        np.save(shard_directory / "a.npy", np.ones((5000, 24), np.float16))

        read_dimension(f"{mirror.url}/a.npy")

        assert mirror.headers[-1]["Range"] == "bytes=0-16383"

    def test_a_missing_file_is_typed(self, mirror: Mirror, tmp_path: Path) -> None:
        for url in (f"{mirror.url}/no.npy", (tmp_path / "no.npy").as_uri()):
            with pytest.raises(SourceMissing, match=r"no\.npy"):
                read_dimension(url)

    def test_a_page_that_is_no_npy_file_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", send_part(b"<html>Welcome</html>", announced=None))

        with pytest.raises(BadNpy, match=r"a\.npy is no npy file"):
            read_dimension(f"{mirror.url}/a.npy")

    def test_a_connection_that_breaks_off_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", send_part(b"\x93NUMPY", announced=5000))

        with pytest.raises(SourceUnreachable, match="broke off"):
            read_dimension(f"{mirror.url}/a.npy")

    def test_a_connection_that_stalls_is_typed(self, mirror: Mirror) -> None:
        mirror.fail("a.npy", stall_after(b"\x93NUMPY", announced=5000))

        with pytest.raises(SourceUnreachable, match="timed out"):
            read_dimension(f"{mirror.url}/a.npy", IMPATIENT)


def test_every_role_has_a_url(shard_directory: Path) -> None:
    put_shard(shard_directory, LAION, 0, shard=0)

    assert set(locate_sources(LAION, shard_directory.as_uri(), [0])[0].urls(0)) == set(ROLES)
