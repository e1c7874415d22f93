"""The way a picture takes to a CLIP model: resize, crop the middle, normalise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from laion.errors import BadModel

Pixels = npt.NDArray[np.float32]

_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
_RESCALE = 1 / 255


@dataclass(frozen=True)
class Preprocessor:
    """The numbers of a `preprocessor_config.json`; `mean` and `std` are per channel, of 0..1."""

    short_side: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `preprocessor_config.json` of the hub's CLIP models. Raises BadModel."""
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            if skipped := [step for step in _STEPS if not values.get(step, True)]:
                raise ValueError(f"{skipped[0]} is off")
            if values.get("resample", Image.Resampling.BICUBIC) != Image.Resampling.BICUBIC:
                raise ValueError("resample is not bicubic (3)")
            if abs(values.get("rescale_factor", _RESCALE) - _RESCALE) > 1e-9:
                raise ValueError("rescale_factor is not 1/255")
            red, green, blue = values["image_mean"]
            red_std, green_std, blue_std = values["image_std"]
            return cls(
                short_side=_side(values["size"], "shortest_edge"),
                crop=_side(values["crop_size"], "height"),
                mean=(red, green, blue),
                std=(red_std, green_std, blue_std),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadModel(f"{path} describes no preprocessing of CLIP: {error!r}") from error

    def prepare(self, image: Image.Image) -> Pixels:
        """Return an RGB picture as the model's input, float32 (3, crop, crop).

        Sizes and offsets are rounded as torchvision rounds them, with whose transforms OpenAI's
        models, and so LAION's vectors, were made.
        """
        width, height = image.size
        short = min(width, height)
        size = (
            max(1, int(self.short_side * width / short)),
            max(1, int(self.short_side * height / short)),
        )
        resized = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((side - self.crop) / 2) for side in size)
        cropped = resized.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(cropped, np.float32) / 255
        normal = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _side(value: int | dict[str, int], name: str) -> int:
    """Return a side's length, which older files give as a number and newer ones by name."""
    side = value if isinstance(value, int) else value[name]
    if isinstance(value, dict) and value.get("width", side) != side:
        raise ValueError("crop_size is no square")
    if side < 1:
        raise ValueError(f"{name} is {side}")
    return side
