"""What encodes the words of a search."""

from __future__ import annotations

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.errors import EncoderMissing
from laion.vectors import IMAGE
from laion.web.encoding import Encoding

OWN = """
title = "own"
vectors = ["image_embedding", "text_embedding", "dino_embedding"]
model = "clip"

[vector.dino_embedding]
model = "dino"

[[layouts]]
image_embedding = "i_{shard}.npy"
text_embedding = "t_{shard}.npy"
dino_embedding = "d_{shard}.npy"
metadata = "m_{shard}.parquet"
"""


def test_the_function_encodes_words_for_vectors_of_its_own_model_only(
    client: Client, own_profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_profiles / "own.toml").write_text(OWN)
    encoding = Encoding("")
    # The embedded server of these tests has no functions.
    monkeypatch.setattr(encoding, "_clickhouse_encodes", lambda client: True)

    target, by = encoding.words(client, "own", IMAGE, "a cat")

    assert by == "encode_text in ClickHouse"
    assert target.expression == "encode_text({text:String})"
    with pytest.raises(EncoderMissing, match="needs the model 'dino'"):
        encoding.words(client, "own", "dino_embedding", "a cat")
