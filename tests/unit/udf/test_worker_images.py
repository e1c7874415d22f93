"""`encode_image` reads pictures below one directory and nothing else."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from laion.encoders.image import load_image_encoder
from laion.errors import BadImage
from laion.udf.pictures import open_picture
from tests.models import DIMENSION
from tests.unit.encoders.test_image import bomb, encoded, noise
from tests.unit.udf.conftest import StartWorker


@pytest.fixture
def cat(pictures: Path) -> Path:
    path = pictures / "cat.png"
    noise(40, 30).save(path)
    return path


@pytest.fixture
def secret(pictures: Path) -> Path:
    """A picture outside, beside the directory."""
    path = pictures.parent / "secret.png"
    noise(20, 20).save(path)
    return path


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_directory(path: Path) -> None:
    path.mkdir()


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def make_empty_file(path: Path) -> None:
    path.touch()


def make_truncated(path: Path) -> None:
    path.write_bytes(encoded(noise(64, 64), "PNG").getvalue()[:500])


def make_svg(path: Path) -> None:
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>')


def make_postscript(path: Path) -> None:
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def make_bomb(path: Path) -> None:
    path.write_bytes(bomb(50_000, 50_000))


def make_tiff(path: Path) -> None:
    noise(9, 9).save(path, "TIFF")


def make_large_file(path: Path) -> None:
    path.write_bytes(encoded(noise(9, 9), "PNG").getvalue() + bytes(2_000_000))


MAKERS = [
    make_fifo,
    make_socket,
    make_directory,
    make_link_to_a_device,
    make_link_to_itself,
    make_empty_file,
    make_truncated,
    make_svg,
    make_postscript,
    make_bomb,
    make_tiff,
    make_large_file,
]


def test_gives_what_the_encoder_gives(start_worker: StartWorker, cat: Path, model: Path) -> None:
    encoder = load_image_encoder(model)
    with Image.open(cat) as image:
        expected = encoder.encode([encoder.prepare(image.convert("RGB"))])[0]

    vector = start_worker("encode_image").call("cat.png")[0]

    assert vector == pytest.approx(expected, abs=1e-5)


def test_bad_pictures_are_empty_and_change_no_other(
    start_worker: StartWorker, cat: Path, pictures: Path
) -> None:
    names = []
    for make in MAKERS:
        name = f"{make.__name__}.png"
        make(pictures / name)
        names.append(name)
    worker = start_worker("encode_image", max_file_bytes=1_000_000)
    alone = worker.call("cat.png")[0]

    vectors = worker.call("cat.png", *names, "cat.png")

    assert [len(vector) for vector in vectors] == [DIMENSION] + [0] * len(names) + [DIMENSION]
    assert np.array_equal(vectors[0], alone)
    assert np.array_equal(vectors[-1], alone)


@pytest.mark.parametrize("root", ["", "/nowhere", "/etc/passwd"])
def test_a_worker_without_a_directory_of_pictures_does_not_start(
    start_worker: StartWorker, root: str
) -> None:
    code, errors = start_worker("encode_image", image_root=root).end()

    assert code == 1
    assert f"LAION_UDF_IMAGE_ROOT: '{root}' is not a directory" in errors


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "./../secret.png",
        "sub/../../secret.png",
        "{outside}/secret.png",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        "link.png",
        "linked/secret.png",
        "http://127.0.0.1/cat.png",
        "file:///etc/passwd",
        "cat.png\x00.jpg",
        "",
        ".",
        "x" * 5000,
        "missing.png",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(
    pictures: Path, cat: Path, secret: Path, name: str
) -> None:
    (pictures / "link.png").symlink_to(secret)
    (pictures / "linked").symlink_to(secret.parent)

    with pytest.raises(BadImage):
        open_picture(pictures, name.format(outside=secret.parent), 1_000_000)


def test_a_name_as_a_row_is_refused_too(start_worker: StartWorker, cat: Path, secret: Path) -> None:
    worker = start_worker("encode_image")

    vectors = worker.call("../secret.png", str(secret), "cat.png", str(cat))

    assert [len(vector) for vector in vectors] == [0, 0, DIMENSION, DIMENSION]
    assert "outside the directory of pictures" in worker.end()[1]


def test_a_file_that_may_not_be_read_is_refused(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cat.chmod(0)
    if os.geteuid() == 0:
        # Root may read everything: the kernel's answer to anybody else.
        def deny(path: str, flags: int) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr("laion.udf.pictures.os.open", deny)

    with pytest.raises(BadImage, match="Permission denied"):
        open_picture(cat.parent, "cat.png", 1_000_000)


def test_what_lies_outside_is_not_told(pictures: Path, secret: Path) -> None:
    """A name outside gets the same answer whether something is there or not."""
    answers = set()
    for name in ("../secret.png", "../nothing.png"):
        with pytest.raises(BadImage) as caught:
            open_picture(pictures, name, 1_000_000)
        answers.add(str(caught.value))

    assert len(answers) == 1


def test_a_link_that_stays_inside_is_followed(pictures: Path, cat: Path) -> None:
    (pictures / "alias.png").symlink_to(cat)

    with open_picture(pictures, "alias.png", 1_000_000) as file:
        assert file.read() == cat.read_bytes()


def test_the_directory_itself_may_be_a_link(tmp_path: Path, pictures: Path, cat: Path) -> None:
    (tmp_path / "mounted").symlink_to(pictures)

    with open_picture(tmp_path / "mounted", "cat.png", 1_000_000) as file:
        assert file.read() == cat.read_bytes()


def test_a_directory_exchanged_for_a_link_meanwhile_is_noticed(
    pictures: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of the name and the opening, `sub` becomes a link out of the directory."""
    inner = pictures / "sub"
    inner.mkdir()
    noise(9, 9).save(inner / "secret.png")
    really_open = os.open

    def exchange_and_open(path: str, flags: int) -> int:
        inner.rename(pictures / "moved")
        inner.symlink_to(secret.parent)
        return really_open(path, flags)

    monkeypatch.setattr("laion.udf.pictures.os.open", exchange_and_open)
    with pytest.raises(BadImage, match="outside"):
        open_picture(pictures, "sub/secret.png", 1_000_000)
