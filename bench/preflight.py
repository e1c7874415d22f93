"""`python -m bench.preflight`: the task preflight of all of LAION-400M against a server here.

The server answers HEAD as a mirror of the dataset would, for all 1,230 files, and has none of them.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import clickhouse_connect

from bench.server import running_server
from laion.clickhouse.search_table.plan import IndexOptions
from laion.datasets import Profile, load_profile
from laion.download import DownloadOptions
from laion.preflight import Run, check_run
from laion.shards import ShardSpec
from laion.sources import locate_sources
from laion.storage import DirectoryArea

CONNECTIONS = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.preflight", description=__doc__)
    parser.add_argument("--without-index", action="store_true", help="as with build_index off")
    parser.add_argument("--missing", type=int, nargs="*", default=[], help="shards it lacks")
    args = parser.parse_args()
    profile = load_profile("laion400m")
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(profile, set(args.missing)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with running_server(Path(name)) as clickhouse:
            show(profile, server.server_port, clickhouse.port, Path(name), args.without_index)
        server.shutdown()


def show(profile: Profile, port: int, clickhouse: int, staging: Path, no_index: bool) -> None:
    """Print the table and how long it took."""
    options = DownloadOptions(connections=CONNECTIONS)
    source = locate_sources(profile, f"http://127.0.0.1:{port}", 0, options)[0]
    specs = [
        ShardSpec(
            dataset=profile.name,
            table=profile.name,
            shard=shard,
            urls={role: [url] for role, url in source.urls(shard).items()},
            rows=profile.rows_of(shard),
            vectors=list(profile.all_vectors),
        )
        for shard in profile.all_shards()
    ]
    run = Run(
        profile=profile,
        table=profile.name,
        specs=specs,
        vectors=profile.all_vectors,
        staging=DirectoryArea(staging, capacity=4),
        index=None if no_index else IndexOptions(quantization="auto"),
    )
    with clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse) as client:
        began = time.perf_counter()
        report = check_run(run, client, options)
        seconds = time.perf_counter() - began
    print(report.as_table())
    print(f"\n{sum(len(spec.urls) for spec in specs):,} files, {seconds:.1f} s")


def _handler(profile: Profile, missing: set[int]) -> type[BaseHTTPRequestHandler]:
    layout = profile.mirrors[0].layout
    sizes: dict[str, int] = {}
    for shard in set(profile.all_shards()) - missing:
        known = profile.file_bytes(shard, profile.dimension or 0)
        for role, path in layout.paths(shard, profile.digits[0]).items():
            sizes[f"/{path}"] = known[role]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            size = sizes.get(self.path)
            self.send_response(404 if size is None else 200)
            self.send_header("Content-Length", str(size or 0))
            self.send_header("ETag", f'"{self.path}"')
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """The table is the output."""

    return Handler


if __name__ == "__main__":
    main()
