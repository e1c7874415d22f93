"""Models on disk: `python -m laion.encoders fetch --models DIR`, and `check` for what is there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from laion.encoders.fetch import NAME, REPOSITORIES, REVISIONS, check_pairs, fetch_model
from laion.encoders.model import ModelDirectory
from laion.errors import LaionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; an error is one line on stderr and code 1."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "fetch":
            revisions = {side: getattr(options, f"{side}_revision") for side in REPOSITORIES}
            directory = fetch_model(options.models, revisions)
        else:
            directory = options.models / NAME
            check_pairs(directory)
        model = ModelDirectory.open(directory).manifest
    except LaionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{directory}: {model.dimension} dimensions, from {model.source}")
    for name, digest in model.files.items():
        print(f"  {digest}  {name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m laion.encoders", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help=f"fetch {NAME} from the Hugging Face hub")
    check = commands.add_parser("check", help="check the files of a model and what it does")
    for command in (fetch, check):
        command.add_argument("--models", type=Path, required=True, help="directory of models")
    for side, repository in REPOSITORIES.items():
        fetch.add_argument(
            f"--{side}-revision",
            default=REVISIONS[side],
            help=f"commit or branch of {repository} (default: {REVISIONS[side]})",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
