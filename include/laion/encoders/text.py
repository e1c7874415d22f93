"""The text encoder: clean, split into tokens, run, bring to unit length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from laion.encoders.clean import clean_text
from laion.encoders.model import (
    TEXT_MODEL,
    TOKENIZER,
    ModelDirectory,
    choose_output,
    open_session,
    run_graph,
)
from laion.encoders.vectors import Vectors, to_unit_length
from laion.errors import BadModel

MAX_BATCH_TOKENS = 512
"""As fast per token as larger batches on a few cores, and the run's memory stays small."""
PAD_ID = 0

Tokens = list[int]


class TextEncoder:
    """Holds the loaded model. Use `load_text_encoder`."""

    def __init__(self, directory: ModelDirectory, threads: int) -> None:
        self.dimension = directory.manifest.dimension
        self._tokenizer = _load_tokenizer(
            directory.verified(TOKENIZER), directory.manifest.max_tokens
        )
        self._session = open_session(directory.verified(TEXT_MODEL), threads)
        self._output = choose_output(self._session, "text_embeds")
        inputs = self._session.get_inputs()
        self._inputs = [node.name for node in inputs]
        self._dtype = np.int32 if inputs[0].type == "tensor(int32)" else np.int64
        length = inputs[0].shape[1]
        self._fixed_length = length if isinstance(length, int) else None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 (len(texts), dimension), in the order of the texts.

        Raises EncodingFailed when the model does not run, or gives no direction for a text.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        tokens = self.tokenize(texts)
        for rows in _batches_by_length(tokens):
            vectors[rows] = self._run([tokens[row] for row in rows])
        return to_unit_length(vectors)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Return each text's token ids, the special ones at both ends included."""
        cleaned = [clean_text(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(cleaned)]

    def _run(self, tokens: list[Tokens]) -> Vectors:
        length = self._fixed_length or max(map(len, tokens))
        ids = np.full((len(tokens), length), PAD_ID, self._dtype)
        mask = np.zeros_like(ids)
        for row, row_ids in enumerate(tokens):
            ids[row, : len(row_ids)] = row_ids
            mask[row, : len(row_ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask}
        given = {name: feeds[name] for name in self._inputs if name in feeds}
        return run_graph(self._session, self._output, given, self.dimension)


def load_text_encoder(path: Path, threads: int = 2) -> TextEncoder:
    """Load the text encoder of the model in `path`, checking its files. Raises BadModel."""
    return TextEncoder(ModelDirectory.open(path), threads)


def _load_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises bare Exception.
        raise BadModel(f"{path} is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    # A text that spells out a special token, such as '[SEP]', means those characters.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _batches_by_length(tokens: list[Tokens]) -> Iterator[list[int]]:
    """Yield row numbers, texts of like length together, so that little is padding."""
    batch: list[int] = []
    for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
        if batch and (len(batch) + 1) * len(tokens[row]) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
