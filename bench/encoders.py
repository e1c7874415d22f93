"""`make bench`, second part: encode_text in ClickHouse against the bare model, and what it finds.

Speed is that of a graph of CLIP ViT-B/32's size with random weights; the precision is that of the
sample with its own model. Prints two tables and writes `bench/encoders.json`.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.clip_sized import write_clip_sized_model
from bench.paraphrases import PARAPHRASES, RIDDLES
from bench.server import running_server
from laion.encoders import text
from laion.encoders.image import load_image_encoder
from laion.encoders.model import ModelDirectory
from laion.encoders.text import TextEncoder, load_text_encoder
from laion.sample.dataset import SHARD_ROWS
from laion.sample.embeddings import model_embeddings
from laion.sample.items import (
    SCENARIOS,
    SCENARIOS_PER_SUBJECT,
    SEED,
    Stream,
    all_captions,
    draw_items,
    generator,
)
from laion.sample.model import ensure_sample_model
from laion.sample.pictures import draw_other_pictures
from laion.sample.vocabulary import SUBJECTS
from laion.udf.checks import Expectation, check_functions
from laion.udf.deploy import Host, deploy_version
from laion.udf.directories import LocalDirectory
from laion.udf.options import WorkerOptions
from laion.udf.version import DEFINITION, render_version

RESULT = Path(__file__).parent / "encoders.json"
CALLS = 100
BULK_ROWS = 2000
TUTORIAL_CALLS = 5
THREADS = 2
BATCH_TOKENS = (256, 512, 1024)
NEAREST = 10
HOST = "127.0.0.1"
SELECT = "SELECT encode_text({t:String})"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        work = Path(name)
        model = write_clip_sized_model(work / "model")
        with running_server(work) as server, server.client() as client:
            speed = measure_speed(
                work, model, client, http.client.HTTPConnection(HOST, server.port)
            )
    precision = measure_precision()
    show(speed, precision)


def measure_speed(
    work: Path, model: Path, client: Any, connection: http.client.HTTPConnection
) -> dict[str, float]:
    """Return milliseconds (per call, or per row in bulk) and megabytes."""
    captions = [caption for caption in all_captions() if len(caption) > 10][:BULK_ROWS]
    encoder = load_text_encoder(model, THREADS)
    tokens = encoder.tokenize(captions)
    encoder.encode(captions[:CALLS])

    deploy = _Deployment(work, model, client)
    deploy.deploy()
    first_ms = _milliseconds(lambda: _call(connection, "the first call"))
    pid = deploy.worker()
    bare, warm, with_driver = [], [], []
    # Taken in turns, so that whatever else the machine does meets both; what has just had the
    # CPU's caches is the other one's model, so that each has a call before the one that counts.
    for row in range(CALLS):
        encoder._run([tokens[row - 1]])
        bare.append(_milliseconds(lambda row=row: encoder._run([tokens[row]])))
        _call(connection, captions[row - 1])
        warm.append(_milliseconds(lambda row=row: _call(connection, captions[row])))
        with_driver.append(_milliseconds(lambda row=row: _call_with_driver(client, captions[row])))
    bulk_ms = min(_milliseconds(lambda: _call_bulk(client, captions)) for _ in range(2))
    figures = {
        "bare ONNX call": statistics.median(bare),
        "SELECT encode_text('…'), warm": statistics.median(warm),
        "the same with clickhouse-connect": statistics.median(with_driver),
        "the first call after deploy_udfs": first_ms,
        "bare ONNX per row, best batch": _best_batch_ms(encoder, tokens) / len(tokens),
        f"encode_text per row, {BULK_ROWS:,} rows": bulk_ms / len(captions),
        "memory of a text worker, MB": _rss_mb(pid),
    }
    deploy.as_the_tutorial_does()
    connection.close()  # The server has, for it was idle; the next call opens it anew.
    calls = [_milliseconds(lambda: _call(connection, "a cat")) for _ in range(TUTORIAL_CALLS)]
    figures["the tutorial's way (executable)"] = statistics.median(calls)
    return figures


def measure_precision() -> dict[str, float]:
    """Return precision@10 by subject over the sample, with its own model."""
    model = ensure_sample_model()
    embeddings = model_embeddings(model)
    images, subjects = [], []
    for number, rows in enumerate(SHARD_ROWS):
        items = draw_items(number, rows)
        noise = generator(SEED, number, Stream.IMAGE_NOISE)
        images.append(embeddings.of_images(items.scenarios, noise))
        subjects.append(items.subjects)
    base, shown = np.concatenate(images), np.concatenate(subjects)

    names = [subject.name for subject in SUBJECTS]
    texts = load_text_encoder(model)
    encoder = load_image_encoder(model)
    chosen = np.arange(0, SCENARIOS, SCENARIOS_PER_SUBJECT // 4)
    pictures = [encoder.prepare(p) for p in draw_other_pictures(chosen.tolist(), number=2)]

    def precision(queries: Any, expected: Any) -> float:
        nearest = np.argsort(-(queries @ base.T), axis=1)[:, :NEAREST]
        return float(np.mean(shown[nearest] == expected[:, None]))

    def of_questions(pairs: tuple[tuple[str, str], ...]) -> float:
        asked = np.array([names.index(name) for name, _ in pairs])
        return precision(texts.encode([question for _, question in pairs]), asked)

    return {
        f"words → items, {len(PARAPHRASES)} paraphrases": of_questions(PARAPHRASES),
        f"words → items, {len(RIDDLES)} riddles": of_questions(RIDDLES),
        f"picture → items, {len(chosen)} pictures": precision(
            encoder.encode(pictures), chosen // SCENARIOS_PER_SUBJECT
        ),
    }


class _Deployment:
    """The functions in the bench's own server."""

    def __init__(self, work: Path, model: Path, client: Any) -> None:
        server = work / "server"
        self._scripts = server / "user_scripts"
        self._functions = server / "user_defined_functions"
        self._client = client
        self._manifest = ModelDirectory.open(model).manifest
        options = WorkerOptions(str(model), threads=THREADS)
        self._version = render_version(self._manifest, options, python=sys.executable, pool_size=1)

    def deploy(self) -> None:
        expected = Expectation(self._manifest, self._version.functions, pool_size=1)
        host = Host(
            "bench", LocalDirectory(self._scripts), LocalDirectory(self._functions), self._client
        )
        deploy_version([host], self._version, lambda client: check_functions(client, expected))

    def worker(self) -> int:
        found = subprocess.run(
            ["pgrep", "-f", f"{self._version.sha}.pyz"], capture_output=True, text=True, check=True
        )
        return int(found.stdout.split()[0])

    def as_the_tutorial_does(self) -> None:
        """The same worker, started anew for every call."""
        path = self._functions / DEFINITION
        path.write_text(path.read_text().replace("executable_pool", "executable"))
        time.sleep(2)
        self._client.command("SYSTEM RELOAD FUNCTIONS")


def _call(connection: http.client.HTTPConnection, caption: str) -> None:
    query = urlencode({"query": SELECT, "param_t": caption, "default_format": "RowBinary"})
    connection.request("POST", f"/?{query}")
    answer = connection.getresponse()
    vector = answer.read()
    assert answer.status == 200, vector


def _call_with_driver(client: Any, caption: str) -> None:
    client.query(SELECT, parameters={"t": caption})


def _call_bulk(client: Any, captions: list[str]) -> None:
    client.query(
        "SELECT sum(length(encode_text(arrayJoin({t:Array(String)}))))", parameters={"t": captions}
    )


def _best_batch_ms(encoder: TextEncoder, tokens: list[list[int]]) -> float:
    """Return the time for all rows, in the best of several batch sizes."""
    times = []
    for text.MAX_BATCH_TOKENS in BATCH_TOKENS:
        batches = [[tokens[row] for row in rows] for rows in text._batches_by_length(tokens)]
        times.append(_milliseconds(lambda batches=batches: [encoder._run(b) for b in batches]))
    return min(times)


def _milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no VmRSS")


def show(speed: dict[str, float], precision: dict[str, float]) -> None:
    bare, warm, _, first, bare_row, row, _, tutorial = speed.values()
    ratios = {
        "warm call / bare ONNX call": warm / bare,
        "bulk / bare ONNX at the best batch": row / bare_row,
        "tutorial's way / warm call": tutorial / warm,
        "first call after deploying / warm call": first / warm,
    }
    console = Console()
    for title, figures, digits in (
        ("A text model of ViT-B/32's size, random weights: ms", speed, 1),
        ("Ratios", ratios, 2),
        ("The sample: precision@10 by subject", precision, 2),
    ):
        table = Table(title=title, title_justify="left", show_header=False)
        for what, value in figures.items():
            table.add_row(what, f"{value:,.{digits}f}")
        console.print(table)
    RESULT.write_text(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "speed": {what: round(value, 2) for what, value in speed.items()},
                "ratios": {what: round(value, 2) for what, value in ratios.items()},
                "precision_at_10": {what: round(value, 3) for what, value in precision.items()},
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
