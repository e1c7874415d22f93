"""Write and serve the sample dataset: `python -m laion.sample serve --directory DIR --port N`.

`model` only builds the sample's model and embeds its texts, `pictures` writes some for
`encode_image`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from laion.errors import LaionError
from laion.sample.dataset import write_dataset
from laion.sample.embeddings import model_embeddings
from laion.sample.model import ensure_sample_model
from laion.sample.pictures import write_example_pictures
from laion.sample.server import serve

MAX_PORT = 65535
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 is success, 1 an error told in one line on stderr, 130 an interrupted write.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "model":
            model = ensure_sample_model()
            model_embeddings(model)
            print(model)
        elif options.command == "pictures":
            write_example_pictures(options.directory)
        else:
            write_dataset(options.directory)
        if options.command == "serve":
            serve(options.directory, options.port)
    except LaionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m laion.sample", description="A small dataset in LAION's own layout."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the files, unless they are there")
    server = commands.add_parser("serve", help="write the files if needed, then serve them")
    commands.add_parser("model", help="build the sample's model, unless it is there")
    pictures = commands.add_parser("pictures", help="write a picture of each subject")
    for command in (write, server, pictures):
        command.add_argument("--directory", type=Path, required=True, help="where the files lie")
    server.add_argument("--port", type=_port, required=True, help="port, 0 for any free one")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"a port lies between 0 and {MAX_PORT}, not {port}")
    return port


if __name__ == "__main__":
    # A write that is told to stop removes its temporary files, whichever signal it gets.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
