"""How much is fuzzed: some hundred cases in `make test`, `FUZZ_EXAMPLES` in a campaign."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def fuzz(usual: int) -> settings:
    """Return the settings of a property that is tried `usual` times in a test run.

    The cases of a test run are always the same; those of a campaign are not.
    """
    return settings(
        max_examples=EXAMPLES or usual,
        deadline=None,
        database=None,
        derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
