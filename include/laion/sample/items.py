"""Which items the sample has: what each shows, and in which words.

There are `SCENARIOS` different things to show, a subject with a look in a scene and a style. Each
has one description, which its picture's vector is made from, and captions in a few forms, which
text vectors are made from. So the sample has few different texts, and a model embeds them all once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

from laion.sample.vocabulary import (
    DESCRIPTION_FORMS,
    LOOKS,
    ODD_CAPTION_FORMS,
    PLAIN_CAPTION_FORMS,
    SCENES,
    STYLES,
    SUBJECTS,
    Phrase,
    Subject,
)

SEED = 400
SCENARIOS_PER_SUBJECT = 20
SCENARIOS = SCENARIOS_PER_SUBJECT * len(SUBJECTS)

_PLAIN_PER_SCENARIO = 3
_SLOTS = 200
"""Each odd caption form takes one row in so many."""

Indices = npt.NDArray[np.int64]


class Stream(IntEnum):
    """One random stream a purpose, so that none shifts another."""

    ITEMS = 0
    IMAGE_NOISE = 1
    TEXT_NOISE = 2
    METADATA = 3
    SCENARIOS = 4
    PICTURES = 5
    OTHER_PICTURES = 6
    EXAMPLES = 7


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a picture shows."""

    subject: Subject
    look: Phrase
    scene: Phrase
    style: Phrase

    def fill(self, form: str, foreign: int = 0) -> str:
        """Return a form of the vocabulary with this scenario's words in it."""
        return form.format(
            subject=self.subject.name,
            category=self.subject.category,
            look=self.look.name,
            scene=self.scene.name,
            style=self.style.name,
            foreign=self.subject.foreign[foreign % len(self.subject.foreign)],
            subject_alias=self.subject.alias,
            look_alias=self.look.alias,
            scene_alias=self.scene.alias,
            style_alias=self.style.alias,
        )


@dataclass(frozen=True, slots=True)
class Items:
    """What the rows of one shard show, as (rows,) indices.

    `scenarios` points into `all_scenarios()` and `all_descriptions()`, `captions` into
    `all_captions()`.
    """

    scenarios: Indices
    captions: Indices

    @property
    def subjects(self) -> Indices:
        """Indices into the vocabulary's SUBJECTS."""
        return self.scenarios // SCENARIOS_PER_SUBJECT

    def caption_texts(self) -> list[str]:
        """The captions, one a row, none missing."""
        return _choose(all_captions(), self.captions)

    def description_texts(self) -> list[str]:
        """The second wording, one a row; it is not stored."""
        return _choose(all_descriptions(), self.scenarios)


def draw_items(number: int, rows: int, *, seed: int = SEED) -> Items:
    """Choose what the rows of shard `number` show; a subject's scenarios are equally likely."""
    random = generator(seed, number, Stream.ITEMS)
    subjects = random.integers(len(SUBJECTS), size=rows)
    within = random.integers(SCENARIOS_PER_SUBJECT, size=rows)
    plain = random.integers(_PLAIN_PER_SCENARIO, size=rows)
    odd = random.permutation(rows) % _SLOTS
    is_odd = odd < len(ODD_CAPTION_FORMS)
    within = np.where(is_odd, odd % SCENARIOS_PER_SUBJECT, within)
    scenarios = subjects * SCENARIOS_PER_SUBJECT + within
    captions = np.where(
        is_odd,
        SCENARIOS * _PLAIN_PER_SCENARIO + subjects * len(ODD_CAPTION_FORMS) + odd,
        scenarios * _PLAIN_PER_SCENARIO + plain,
    )
    return Items(scenarios, captions)


@cache
def all_scenarios() -> tuple[Scenario, ...]:
    """Return every scenario, subject by subject."""
    random = generator(SEED, 0, Stream.SCENARIOS)

    def draw(words: Sequence[Phrase]) -> Phrase:
        return words[int(random.integers(len(words)))]

    return tuple(
        Scenario(subject, draw(LOOKS[subject.category]), draw(SCENES), draw(STYLES))
        for subject in SUBJECTS
        for _ in range(SCENARIOS_PER_SUBJECT)
    )


@cache
def all_descriptions() -> tuple[str, ...]:
    """Return the description of every scenario."""
    return tuple(
        scenario.fill(DESCRIPTION_FORMS[number % len(DESCRIPTION_FORMS)])
        for number, scenario in enumerate(all_scenarios())
    )


@cache
def all_meanings() -> tuple[str, ...]:
    """Return what every subject is, in words that its captions do not have."""
    return tuple(f"{subject.alias}, {subject.meaning}" for subject in SUBJECTS)


@cache
def all_captions() -> tuple[str, ...]:
    """Return every caption: the plain ones of each scenario, then each subject's odd ones."""
    scenarios, forms = all_scenarios(), PLAIN_CAPTION_FORMS
    plain = [
        scenario.fill(forms[(number + place * 3) % len(forms)], number)
        for number, scenario in enumerate(scenarios)
        for place in range(_PLAIN_PER_SCENARIO)
    ]
    odd = [
        scenarios[_odd_scenario(subject, place)].fill(form, subject)
        for subject in range(len(SUBJECTS))
        for place, form in enumerate(ODD_CAPTION_FORMS)
    ]
    return (*plain, *odd)


@cache
def caption_scenarios() -> tuple[int, ...]:
    """Return the index of the scenario that each of `all_captions()` tells of."""
    plain = [number for number in range(SCENARIOS) for _ in range(_PLAIN_PER_SCENARIO)]
    odd = [
        _odd_scenario(subject, place)
        for subject in range(len(SUBJECTS))
        for place in range(len(ODD_CAPTION_FORMS))
    ]
    return (*plain, *odd)


def _odd_scenario(subject: int, place: int) -> int:
    return subject * SCENARIOS_PER_SUBJECT + place % SCENARIOS_PER_SUBJECT


def generator(seed: int, number: int, stream: Stream) -> np.random.Generator:
    """Return the random numbers of one purpose in one shard."""
    return np.random.default_rng([seed, number, stream])


def _choose(texts: Sequence[str], chosen: Indices) -> list[str]:
    return [texts[index] for index in chosen.tolist()]
