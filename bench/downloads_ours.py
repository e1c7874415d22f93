"""Ours, as a process of its own: `python -m bench.downloads_ours plain|sha256 URL`."""

from __future__ import annotations

import sys
from pathlib import Path

from laion.download import DownloadOptions, download_shard
from laion.shards import ShardSpec

url = sys.argv[2]
names = {
    "image_embedding": "img_emb_0.npy",
    "text_embedding": "text_emb_0.npy",
    "metadata": "metadata_0.parquet",
}
urls = {role: [f"{url}/{name}"] for role, name in names.items()}
options = DownloadOptions(checksum=sys.argv[1] == "sha256")
download_shard(ShardSpec("bench", "bench", 0, urls), "0" * 8, Path.cwd(), options)
