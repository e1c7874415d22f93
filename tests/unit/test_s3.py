"""Sources on S3, here moto's server, which checks every signature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from laion.datasets import load_profile
from laion.download import DownloadOptions, download_shard
from laion.download.partial import read_origin, write_origin
from laion.errors import BadSource, SourceMissing, SourceRefused, SourceUnusable
from laion.s3 import S3Options
from laion.sources import discover_shards, locate_sources, read_dimension
from laion.survey import survey_files
from tests.s3 import S3Server
from tests.shard_files import DIMENSION, ROLES, ROWS, spec_of, write_little_shard
from tests.unit.mirrors import Mirror, answer

PROFILE = load_profile("clip_retrieval")


@pytest.fixture
def options(s3_server: S3Server) -> DownloadOptions:
    return DownloadOptions(first_wait_s=0, s3=s3_server.options)


@pytest.fixture
def source(s3_server: S3Server, shard_directory: Path) -> str:
    """Three shards in a bucket, below a prefix that wants quoting."""
    bucket, client = s3_server.make_bucket(), s3_server.client()
    for shard in range(3):
        for path in write_little_shard(shard_directory, shard).paths.values():
            key = f"my data+1/{Path(path).relative_to(shard_directory)}"
            client.put_object(Bucket=bucket, Key=key, Body=Path(path).read_bytes())
    return f"s3://{bucket}/my data+1"


def test_its_shards_are_found_counted_and_surveyed(source: str, options: DownloadOptions) -> None:
    place = locate_sources(PROFILE, source, [0], options)[0]

    assert place.base == source
    assert discover_shards(PROFILE, source, options) == [0, 1, 2]
    assert read_dimension(place.urls(0)["image_embedding"], options) == DIMENSION
    survey = survey_files([spec_of(source, 0), spec_of(source, 9)], options)
    assert set(survey.broken_shards) == {9}
    assert survey.sizes[0, "image_embedding"] == 128 + ROWS * DIMENSION * 2


def test_files_arrive_whole_with_the_version_that_they_are(
    source: str, options: DownloadOptions, shard_directory: Path, tmp_path: Path
) -> None:
    files = download_shard(spec_of(source), "aaaa0001", tmp_path, options)

    original = write_little_shard(shard_directory, 0)
    for role in ROLES:
        assert Path(files.paths[role]).read_bytes() == Path(original.paths[role]).read_bytes()
        assert files.origins[role]["url"].startswith(source)
        assert files.origins[role]["etag"]


def test_a_download_goes_on_where_it_stopped(
    source: str, options: DownloadOptions, tmp_path: Path
) -> None:
    whole = download_shard(spec_of(source), "aaaa0001", tmp_path, options)
    path = Path(whole.paths["image_embedding"])
    body, origin = path.read_bytes(), read_origin(path)
    assert origin is not None
    part = path.with_name(f"{path.name}.part")
    path.unlink()
    # Bytes that the source does not have show that they were not fetched again.
    part.write_bytes(b"\x93NUMPY" + bytes(494))
    write_origin(part, replace(origin, sha256=""))

    download_shard(spec_of(source), "aaaa0001", tmp_path, options)

    assert path.read_bytes() == b"\x93NUMPY" + bytes(494) + body[500:]


def test_a_file_that_has_changed_is_fetched_again(
    source: str, options: DownloadOptions, s3_server: S3Server, tmp_path: Path
) -> None:
    before = download_shard(spec_of(source), "aaaa0001", tmp_path, options)
    bucket, prefix = source.removeprefix("s3://").split("/")
    changed = b"\x93NUMPY another"
    key = f"{prefix}/img_emb/img_emb_0.npy"
    s3_server.client().put_object(Bucket=bucket, Key=key, Body=changed)

    after = download_shard(spec_of(source), "aaaa0001", tmp_path, options)

    assert Path(after.paths["image_embedding"]).read_bytes() == changed
    assert after.origins["metadata"] == before.origins["metadata"]


def test_wrong_credentials_are_said_and_not_shown(source: str, options: DownloadOptions) -> None:
    wrong = replace(options, s3=replace(options.s3, secret="not-the-secret"))

    with pytest.raises(SourceRefused, match="check the credentials") as caught:
        locate_sources(PROFILE, source, [0], wrong)
    assert "not-the-secret" not in str(caught.value)


def test_a_bucket_of_another_region_is_told_with_that_region(
    mirror: Mirror, options: DownloadOptions
) -> None:
    mirror.fail(".npy", answer(301, {"x-amz-bucket-region": "eu-west-1"}), method="")
    elsewhere = replace(options, s3=replace(options.s3, endpoint_url=mirror.url))

    with pytest.raises(SourceUnusable, match=r"region eu-west-1; .*region_name"):
        locate_sources(PROFILE, "s3://bucket/x", [0], elsewhere)


def test_a_bucket_that_does_not_exist_has_no_shard(options: DownloadOptions) -> None:
    with pytest.raises(SourceMissing, match="s3://no-such-bucket"):
        locate_sources(PROFILE, "s3://no-such-bucket/x", [0], options)


def test_credentials_in_the_uri_are_refused_and_not_shown() -> None:
    with pytest.raises(BadSource, match="Airflow connection") as caught:
        locate_sources(PROFILE, "s3://AKIA:hush@bucket/x", [0])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "uri", "url"),
    [
        (
            S3Options(region="eu-west-1"),
            "s3://bucket/a b/1+2.npy",
            "https://bucket.s3.eu-west-1.amazonaws.com/a%20b/1%2B2.npy",
        ),
        (
            S3Options(region="eu-west-1"),
            "s3://dotted.bucket/1.npy",
            "https://s3.eu-west-1.amazonaws.com/dotted.bucket/1.npy",
        ),
        (
            S3Options(endpoint_url="http://minio:9000/"),
            "s3://bucket/1.npy",
            "http://minio:9000/bucket/1.npy",
        ),
    ],
)
def test_objects_have_an_address_on_the_web(options: S3Options, uri: str, url: str) -> None:
    assert options.object_url(uri) == url


def test_without_credentials_requests_are_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    assert S3Options(region="nowhere").signature() is None


def test_what_is_not_given_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_ENDPOINT_URL_S3": "http://minio:9000",
    }.items():
        monkeypatch.setenv(name, value)
    options = S3Options(region="elsewhere")

    found = options.credentials()

    assert found is not None
    assert (found.access_key, found.secret_key) == ("AKIA", "hush")
    assert options.object_url("s3://bucket/1.npy") == "http://minio:9000/bucket/1.npy"
    assert "hush" not in repr(options)
