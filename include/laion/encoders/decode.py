"""Pictures from files that nobody vouches for."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image

from laion.errors import BadImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_SIDE_RATIO = 100
"""Longest side to shortest: resizing a 1 × 60,000 picture by its short side would blow it up."""

_GREY_16_BIT = frozenset({"I;16", "I;16B", "I;16L", "I"})

# Pillow warns of broken EXIF, of palettes with transparency and the like, and decodes the picture
# all the same. The filter is the whole process's: `catch_warnings` is not made for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Return the first frame of a JPEG, PNG, WebP or GIF as RGB.

    What the name of the file says does not matter. 16-bit grey is scaled down to 8 bits; the
    orientation noted in EXIF is not applied, as it was not for LAION's vectors.
    Raises BadImage: another format, truncated, more than `max_pixels`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(f"{width} × {height} pixels, more than {max_pixels:,}")
            if max(width, height) > MAX_SIDE_RATIO * min(width, height):
                raise BadImage(f"{width} × {height} pixels are too narrow")
            image.seek(0)
            return _to_rgb(image)
    except BadImage:
        raise
    except Exception as error:
        # Decoders raise whatever a broken file leads them to.
        raise BadImage(f"no picture that can be decoded: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GREY_16_BIT:
        grey = np.asarray(image, np.int64).clip(0, 65_535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
