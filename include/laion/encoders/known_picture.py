"""The picture by which one sees that an image encoder gives what it gave before."""

from __future__ import annotations

import io
from base64 import b64decode

from PIL import Image

from laion.encoders.decode import decode_image

KNOWN_PICTURE_NAME = "."
"""What `encode_image` takes for it: the directory of pictures, which is no picture itself."""

_SIDES = (24, 16)
_PNG = b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAABgAAAAQCAIAAACDRijCAAAAW0lEQVR42mNkYGDgZmDhZmBFQuhcHnyyUAUsDIKc"
    b"DAysMMSCxCbIRRFhYRDkotAICBfNReQYgeYi8o1ANogiIyBc/IFNQtjhCmySgx8zsMmMQeTAHk1HIy4dAQA3gQm3"
    b"Jg6mmQAAAABJRU5ErkJggg=="
)
"""A gradient of its own in each channel: a swapped channel, a flip and another crop all show."""


def open_known_picture() -> Image.Image:
    """Return the known picture, RGB, decoded as every other one is. Raises BadImage."""
    return decode_image(io.BytesIO(_PNG), _SIDES[0] * _SIDES[1])
