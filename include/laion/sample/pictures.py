"""Pictures of the sample: not of cats, but of what stands for a cat here.

Every subject has a sign of its own, five by five fields in two colours that depend on its name,
and every scene a background. A picture is a sign at a place and in a size of its own on the
scene's background, with noise, and the subject's name below, for people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from laion.errors import SampleNotWritable
from laion.sample.items import (
    SCENARIOS_PER_SUBJECT,
    SEED,
    Scenario,
    Stream,
    all_scenarios,
    generator,
)
from laion.sample.vocabulary import SUBJECTS

SIDE = 256
JPEG_QUALITY = 85

_FIELDS = 5
_FIELD_SIDE = 36
_MAX_SHIFT = 14
_SIZES = (0.9, 1.1)
_BRIGHTNESS = (0.85, 1.15)
_NOISE = 12
_LABEL_HEIGHT = 26

Bytes = npt.NDArray[np.uint8]


def render_picture(scenario: Scenario, random: np.random.Generator) -> Image.Image:
    """Draw a scenario; `random` decides about place, size, brightness and noise."""
    canvas = Image.fromarray(_background(scenario))
    sign = Image.fromarray(_sign(scenario.subject.name), "RGBA")
    side = round(_FIELDS * _FIELD_SIDE * random.uniform(*_SIZES))
    sign = sign.resize((side, side), Image.Resampling.NEAREST)
    left, top = (SIDE - side) // 2 + random.integers(-_MAX_SHIFT, _MAX_SHIFT + 1, 2)
    canvas.paste(sign, (int(left), int(top) - _LABEL_HEIGHT // 2), sign)
    pixels = np.asarray(canvas, np.float32) * random.uniform(*_BRIGHTNESS)
    pixels += random.normal(0, _NOISE, pixels.shape)
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    _write_name(picture, scenario.subject.name)
    return picture


def draw_other_pictures(scenarios: Iterable[int], number: int) -> list[Image.Image]:
    """Draw scenarios, given by index, as no item of the dataset shows them.

    `number` picks one of many sets; set 0 is what the image encoder is fitted on.
    """
    random = generator(SEED, number, Stream.OTHER_PICTURES)
    return [render_picture(all_scenarios()[index], random) for index in scenarios]


def write_example_pictures(directory: Path) -> None:
    """Write one picture a subject, `cat.jpg` and so on, none of them the dataset's.

    Raises SampleNotWritable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number, subject in enumerate(SUBJECTS):
            random = generator(SEED, number, Stream.EXAMPLES)
            picture = render_picture(all_scenarios()[number * SCENARIOS_PER_SUBJECT], random)
            picture.save(directory / f"{subject.slug}.jpg", quality=JPEG_QUALITY)
    except OSError as error:
        raise SampleNotWritable(
            f"Cannot write pictures to {directory}: {error.strerror or error}."
        ) from error


def _background(scenario: Scenario) -> Bytes:
    """Two colours of the scene, from top to bottom."""
    digest = np.frombuffer(hashlib.sha256(scenario.scene.name.encode()).digest(), np.uint8)
    top, bottom = (digest[start : start + 3].astype(float) / 2 + 120 for start in (0, 3))
    share = np.linspace(0, 1, SIDE)[:, None]
    rows = ((1 - share) * top + share * bottom).astype(np.uint8)
    return np.broadcast_to(rows[:, None, :], (SIDE, SIDE, 3)).copy()


def _sign(name: str) -> Bytes:
    """The subject's fields as RGBA, (5, 5, 4): mirrored, of one of two colours or empty."""
    digest = np.frombuffer(hashlib.sha256(f"sign of {name}".encode()).digest(), np.uint8)
    half = digest[: _FIELDS * 3].reshape(_FIELDS, 3) % 3
    fields = np.concatenate([half, half[:, 1::-1]], axis=1)
    colours = np.zeros((3, 4), np.uint8)
    colours[1, :3], colours[2, :3] = digest[15:18], digest[18:21]
    colours[1:, 3] = 255
    sign: Bytes = colours[fields]
    return sign


def _write_name(picture: Image.Image, name: str) -> None:
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, SIDE - _LABEL_HEIGHT, SIDE, SIDE), fill=(250, 250, 250))
    font = ImageFont.load_default(18)
    middle = (SIDE / 2, SIDE - _LABEL_HEIGHT / 2)
    draw.text(middle, name, fill=(40, 40, 40), font=font, anchor="mm")
