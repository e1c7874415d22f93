"""Words and pictures of a search as targets: by ClickHouse's own function, or by a model here."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from laion.clickhouse.client import Client
from laion.clickhouse.search_table.search import Target
from laion.datasets import load_profile
from laion.encoders.decode import decode_image
from laion.encoders.image import load_image_encoder
from laion.encoders.text import load_text_encoder
from laion.errors import EncoderMissing, UnknownDataset
from laion.vectors import TEXT
from laion.web.status import read_functions

MAX_PICTURE_BYTES = 10 << 20
MAX_PICTURE_PIXELS = 50_000_000
FUNCTIONS_AGE_S = 60
"""How long it may go unnoticed that `encode_text` was deployed or has gone."""


class Encoding:
    """Makes targets. Models are loaded when they are first needed, and kept."""

    def __init__(self, models_dir: str) -> None:
        self._models_dir = models_dir
        self._lock = threading.Lock()
        self._loaded: dict[Path, Any] = {}
        self._has_function: tuple[float, bool] = (0.0, False)

    def words(self, client: Client, dataset: str, column: str, text: str) -> tuple[Target, str]:
        """Return the target of a text, and what encodes it.

        Raises EncoderMissing, BadModel, EncodingFailed.
        """
        model = self._model_of(dataset, column)
        # The functions are those of the model of the texts.
        if model == self._model_of(dataset, TEXT) and self._clickhouse_encodes(client):
            return Target.text(text), "encode_text in ClickHouse"
        encoder = self._load(load_text_encoder, self._model(dataset, column, "words"))
        return _vector(encoder.encode([text])), "the model, in Airflow's API server"

    def picture(self, dataset: str, column: str, content: bytes) -> Target:
        """Return the target of a picture's file. Raises BadImage, EncoderMissing, BadModel."""
        model = self._model(dataset, column, "pictures")
        image = decode_image(io.BytesIO(content), MAX_PICTURE_PIXELS)
        encoder = self._load(load_image_encoder, model)
        return _vector(encoder.encode([encoder.prepare(image)]))

    def _clickhouse_encodes(self, client: Client) -> bool:
        asked_at, answer = self._has_function
        if not asked_at or time.monotonic() - asked_at > FUNCTIONS_AGE_S:
            found = read_functions(client)
            answer = any(one.name == "encode_text" and one.works for one in found)
            self._has_function = (time.monotonic(), answer)
        return answer

    def _model(self, dataset: str, column: str, what: str) -> Path:
        name = self._model_of(dataset, column)
        if name is None:
            raise EncoderMissing(
                f"Dataset {dataset!r} does not say which model made its vectors, so that {what} "
                "cannot be searched for; search by one of its rows."
            )
        if not self._models_dir:
            raise EncoderMissing(
                f"Searching for {what} needs the model {name!r}: set LAION_MODELS_DIR for "
                "Airflow's API server (docs/udf.md)."
            )
        return Path(self._models_dir) / name

    @staticmethod
    def _model_of(dataset: str, column: str) -> str | None:
        try:
            return load_profile(dataset).model_of(column)
        except UnknownDataset:
            return None

    def _load(self, load: Callable[[Path], Any], model: Path) -> Any:
        key = model / load.__name__
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load(model)
            return self._loaded[key]


def _vector(vectors: Sequence[Any]) -> Target:
    return Target.vector(vectors[0].tolist())
