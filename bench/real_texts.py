"""Real texts with vectors of a real model: what WordNet and Debian say of words and packages.

Some 225,000 short texts: the definitions and examples of WordNet (Debian's package wordnet-base),
and the one-line descriptions of Debian's packages. The vectors are those of the sample's language
model, all-MiniLM-L6-v2. Both are kept in `.state/`, by a hash of the texts.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.hard_vectors import Vectors
from laion.encoders.text import load_text_encoder
from laion.sample.minilm import DIMENSION
from laion.sample.model import ensure_sample_model
from laion.vectors import TEXT

KEPT = Path(__file__).parents[1] / ".state" / "bench"
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
LEAST_WORDS = 3
"""Of a text; WordNet's glosses have remarks of one or two."""
BLOCK = 2000


class RealTexts:
    """Rows of one vector each; asked by single words, by short phrases, by texts left out."""

    name = "real texts"
    dimension = DIMENSION
    columns = (TEXT,)
    searched = TEXT
    query_kinds = ("words", "phrases", "sentences")

    def __init__(self, queries: int) -> None:
        texts, terms = _wordnet()
        texts = sorted(texts | _descriptions())
        random = np.random.default_rng(7)
        random.shuffle(texts)
        sentences, texts = texts[:queries], texts[queries:]
        words = [term for term in sorted(terms) if " " not in term]
        phrases = [term for term in sorted(terms) if " " in term]
        asked = {
            "words": random.choice(words, queries, replace=False).tolist(),
            "phrases": random.choice(phrases, queries, replace=False).tolist(),
            "sentences": sentences,
        }
        self.rows = len(texts)
        self.queries: dict[str, Vectors] = {kind: _encode(some) for kind, some in asked.items()}
        self._vectors = _encode(texts)

    def batches(self, size: int) -> Iterator[dict[str, Vectors]]:
        """Yield the vectors of rows."""
        for first in range(0, self.rows, size):
            yield {TEXT: self._vectors[first : first + size]}


def _wordnet() -> tuple[set[str], set[str]]:
    """Return the texts of WordNet 3.0, and the terms that it explains."""
    texts, terms = set(), set()
    with tempfile.TemporaryDirectory() as name:
        # As root, apt would download as a user that cannot write here.
        as_this_user = ["-o", "APT::Sandbox::User=root"]
        command = ["apt-get", "download", "-qq", *as_this_user, "wordnet-base"]
        subprocess.run(command, cwd=name, check=True)
        (package,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, name], check=True)
        for part in PARTS_OF_SPEECH:
            path = Path(name, "usr", "share", "wordnet", f"data.{part}")
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("  "):  # The licence.
                    continue
                entry, _, gloss = line.partition(" | ")
                fields = entry.split()
                count = int(fields[3], 16)
                # Adjectives have their place behind them, as in "afloat(p)".
                lemmas = (re.sub(r"\(\w+\)$", "", word) for word in fields[4 : 4 + 2 * count : 2])
                terms.update(lemma.replace("_", " ") for lemma in lemmas)
                texts.update(text.strip(' "') for text in gloss.split(";"))
    return {text for text in texts if len(text.split()) >= LEAST_WORDS}, terms


def _descriptions() -> set[str]:
    """Return the one-line descriptions of Debian's packages."""
    packages = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^Description: (.+)$", packages, re.MULTILINE)
    return {text.strip() for text in found if len(text.split()) >= LEAST_WORDS}


def _encode(texts: list[str]) -> Vectors:
    """Return the vectors of texts, from a file where they were encoded before."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    path = KEPT / f"texts-{digest[:16]}.npy"
    if not path.exists():
        encoder = load_text_encoder(ensure_sample_model())
        blocks = [texts[first : first + BLOCK] for first in range(0, len(texts), BLOCK)]
        vectors = np.concatenate([encoder.encode(block) for block in blocks])
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, vectors)
        Path(file.name).replace(path)
    vectors: Vectors = np.load(path)
    return vectors
