from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image

from laion.errors import SampleMissing
from laion.sample.server import create_app

TIMEOUT_S = 30
FILE = "img_emb/img_emb_6.npy"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "laion.sample", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "laion.sample", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str], signum: signal.Signals) -> tuple[str, str]:
    process.send_signal(signum)
    try:
        return process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()


def get(url: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(url, headers=named, timeout=TIMEOUT_S)


def raw_status(url: str, path: str) -> int:
    """The status of a path that a well-behaved client would not send as it is."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.fixture(scope="module")
def url(sample_directory: Path) -> Iterator[str]:
    process = start("serve", "--directory", str(sample_directory), "--port", "0")
    try:
        yield first_line(process)
    finally:
        stop(process, signal.SIGTERM)


@pytest.fixture(scope="module")
def content(sample_directory: Path) -> bytes:
    return (sample_directory / FILE).read_bytes()


class TestFiles:
    @pytest.mark.parametrize(
        "path", [FILE, "text_emb/text_emb_6.npy", "metadata/metadata_0.parquet"]
    )
    def test_a_file_arrives_unchanged(self, url: str, sample_directory: Path, path: str) -> None:
        answer = get(url + path)
        assert answer.status_code == 200
        assert answer.content == (sample_directory / path).read_bytes()
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Last-Modified"]

    def test_head_tells_the_size_and_sends_no_body(self, url: str, content: bytes) -> None:
        answer = requests.head(url + FILE, timeout=TIMEOUT_S)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["Content-Length"]) == len(content)
        assert answer.headers["ETag"] == get(url + FILE).headers["ETag"]

    def test_an_unchanged_file_is_not_sent_again(self, url: str) -> None:
        etag = get(url + FILE).headers["ETag"]
        assert get(url + FILE, If_None_Match=etag).status_code == 304


class TestPictures:
    def test_an_items_picture_is_at_the_path_of_its_url(
        self, url: str, sample_directory: Path
    ) -> None:
        table = pq.read_table(sample_directory / "metadata" / "metadata_2.parquet")
        path = table["url"][7].as_py().removeprefix("https://sample.invalid/")
        answer = get(url + path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (256, 256))
        assert get(url + path).content == answer.content

    @pytest.mark.parametrize("path", ["cat/999999999999.jpg", "cat/2001.jpg", "dragon/1.jpg"])
    def test_what_no_item_shows_is_not_found(self, url: str, path: str) -> None:
        assert get(url + path).status_code == 404


class TestRanges:
    def test_a_resumed_download_has_the_same_bytes(self, url: str, content: bytes) -> None:
        half = len(content) // 2
        first = get(url + FILE, Range=f"bytes=0-{half - 1}")
        rest = get(url + FILE, Range=f"bytes={half}-", If_Range=first.headers["ETag"])
        assert (first.status_code, rest.status_code) == (206, 206)
        assert rest.headers["Content-Range"] == f"bytes {half}-{len(content) - 1}/{len(content)}"
        assert first.content + rest.content == content

    def test_the_last_bytes_can_be_asked_for(self, url: str, content: bytes) -> None:
        assert get(url + FILE, Range="bytes=-100").content == content[-100:]

    def test_a_range_may_depend_on_the_date(self, url: str) -> None:
        date = get(url + FILE).headers["Last-Modified"]
        assert get(url + FILE, Range="bytes=10-", If_Range=date).status_code == 206

    @pytest.mark.parametrize("validator", ['"other"', "Thu, 01 Jan 1970 00:00:00 GMT"])
    def test_another_version_is_sent_as_a_whole(
        self, url: str, content: bytes, validator: str
    ) -> None:
        answer = get(url + FILE, Range="bytes=10-", If_Range=validator)
        assert answer.status_code == 200
        assert answer.content == content

    def test_a_range_behind_the_end_is_refused(self, url: str, content: bytes) -> None:
        answer = get(url + FILE, Range=f"bytes={len(content)}-")
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


class TestNothingElse:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/img_emb",
            "/img_emb/",
            "/img_emb/img_emb_8.npy",
            "/../secret",
            "/img_emb/../../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/link",
            "/img_emb/%00",
        ],
    )
    def test_is_not_found(self, url: str, sample_directory: Path, path: str) -> None:
        secret = sample_directory.parent / "secret"
        link = sample_directory / "link"
        secret.write_text("secret")
        link.symlink_to(secret)
        try:
            assert raw_status(url, path) == 404
        finally:
            link.unlink()
            secret.unlink()

    def test_is_written(self, url: str) -> None:
        assert requests.put(url + FILE, data=b"x", timeout=TIMEOUT_S).status_code == 405

    def test_is_served_from_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(SampleMissing, match="nowhere"):
            create_app(tmp_path / "nowhere")


class TestCommandLine:
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_serve_prints_its_url_and_stops_cleanly(
        self, sample_directory: Path, signum: signal.Signals
    ) -> None:
        process = start("serve", "--directory", str(sample_directory), "--port", "0")
        url = first_line(process)
        with requests.Session() as session:
            assert session.get(url + FILE, timeout=TIMEOUT_S).status_code == 200
            rest, errors = stop(process, signum)
        assert (process.returncode, rest, errors) == (0, "", "")

    def test_serve_listens_on_this_machine_only(self, url: str) -> None:
        assert url.startswith("http://127.0.0.1:")

    def test_serve_writes_a_missing_sample(self, tmp_path: Path) -> None:
        process = start("serve", "--directory", str(tmp_path / "new"), "--port", "0")
        status = get(first_line(process) + "metadata/metadata_7.parquet").status_code
        stop(process, signal.SIGTERM)
        assert status == 200

    def test_a_write_told_to_stop_leaves_no_temporary_file(self, tmp_path: Path) -> None:
        process = start("write", "--directory", str(tmp_path))
        deadline = time.monotonic() + TIMEOUT_S
        while not list(tmp_path.rglob("*.tmp")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        _, errors = stop(process, signal.SIGTERM)
        assert (process.returncode, errors) == (130, "")
        assert not list(tmp_path.rglob("*.tmp"))

    def test_write_succeeds_silently(self, sample_directory: Path) -> None:
        result = run("write", "--directory", str(sample_directory))
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def test_a_taken_port_is_one_line_and_exit_code_1(self, sample_directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            result = run("serve", "--directory", str(sample_directory), "--port", port)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
        assert result.stderr.count("\n") == 1

    def test_a_directory_it_cannot_write_is_one_line_and_exit_code_1(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        result = run("write", "--directory", str(tmp_path / "file"))
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("error: Cannot write the sample dataset to ")
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("port", ["-1", "65536", "http"])
    def test_a_port_that_is_none_is_a_usage_error(self, tmp_path: Path, port: str) -> None:
        result = run("serve", "--directory", str(tmp_path), f"--port={port}")
        assert result.returncode == 2
        assert "--port" in result.stderr
