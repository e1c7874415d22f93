"""The clean-up that CLIP's tokeniser gives a text before it splits it."""

from __future__ import annotations

import html
import re

import ftfy

MAX_CHARACTERS = 20_000
"""What is cleaned of a longer text: many times what any model's window holds."""

_BLANKS = re.compile(r"\s+")


def clean_text(text: str) -> str:
    """Return `text` without mojibake, HTML entities, runs of blanks and capitals.

    The same steps in the same order as OpenAI's `simple_tokenizer.py` and as open_clip.
    """
    mended = ftfy.fix_text(text[:MAX_CHARACTERS])
    plain = html.unescape(html.unescape(mended))
    return _BLANKS.sub(" ", plain).strip().lower()
