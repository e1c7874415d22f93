"""What can be learnt from the text of a statement without running it. Pure functions on bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

# Possessive: a quote that is never closed would else be tried in all ways, for ever.
_TOKEN = re.compile(
    rb"""
      (?P<blank> \s+ | --[^\n]* | \#[ !][^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string> '(?:[^'\\]++|\\.|'')*+' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<quoted> "(?:[^"\\]++|\\.|"")*+" | `(?:[^`\\]++|\\.|``)*+` )
    | (?P<word> [A-Za-z_][\w$]* )
    | (?P<number> [0-9][\w.]* )
    | (?P<sign> . )
    """,
    re.DOTALL | re.VERBOSE,
)
_DATA_START = re.compile(rb"[ \t\f]*(?:\r?\n)?")
_OPEN, _CLOSE = frozenset(b"([{"), frozenset(b")]}")
_NO_INLINE_DATA = frozenset({b"SELECT", b"WITH", b"FROM", b"WATCH"})
_REMEMBERED = 256
_SHORT_BYTES = 16 * 1024


@dataclass(frozen=True)
class Token:
    """A token that is neither blank nor comment. ``depth`` counts the brackets around it."""

    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    @property
    def keyword(self) -> bytes:
        """The word in upper case; empty for anything that is not a bare word."""
        return self.text.upper() if self.kind == "word" else b""


@dataclass(frozen=True)
class InlineInsert:
    """An INSERT that brings its data along.

    ``target`` is ``INSERT INTO t (a, b)``, ``settings`` the SETTINGS clause or empty;
    ``data_start`` is where, in the text it was found in, the data begin.
    """

    target: bytes
    settings: bytes
    format: str
    data_start: int


def remembered(find: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Remember what is found in short texts: programs ask the same again and again."""
    remember = lru_cache(_REMEMBERED)(find)

    @wraps(find)
    def look(text: bytes) -> T:
        return remember(text) if len(text) <= _SHORT_BYTES else find(text)

    return look


def tokenize(text: bytes) -> Iterator[Token]:
    """The tokens of ``text``, lazily, so that data after an INSERT are never looked at."""
    depth = 0
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup if found.lastgroup != "tag" else "string"
        if kind is None or kind == "blank":
            continue
        sign = found[0][0] if kind == "sign" else 0
        if sign in _CLOSE:
            depth -= 1
        yield Token(kind, found[0], found.start(), found.end(), depth)
        if sign in _OPEN:
            depth += 1


def first_keyword(text: bytes) -> bytes:
    """The first bare word of the statement, in upper case, past any opening parentheses."""
    return next((t.keyword for t in tokenize(text) if t.text != b"("), b"")


def split_insert(text: bytes) -> InlineInsert | None:
    """Split ``INSERT … FORMAT X <data>`` and ``INSERT … VALUES <data>``.

    ``text`` may end anywhere after the FORMAT clause or VALUES. None for every other statement,
    also for ``INSERT … SELECT``.
    """
    tokens = tokenize(text)
    if next((t.keyword for t in tokens), b"") != b"INSERT":
        return None
    previous = b"INTO"
    target_end = None
    for token in tokens:
        word = token.keyword
        if token.depth or previous in (b"INTO", b"TABLE", b"FUNCTION", b"."):
            # Inside brackets, or a table's name: it may well be called `format`.
            if token.depth == 0:
                named = word not in (b"INTO", b"TABLE", b"FUNCTION")
                previous = b"" if named else word
            continue
        if word in _NO_INLINE_DATA:
            return None
        if word == b"SETTINGS":
            target_end = token.start
        elif word in (b"VALUES", b"FORMAT"):
            target_end = token.start if target_end is None else target_end
            target, settings = text[:target_end], text[target_end : token.start]
            if word == b"VALUES":
                return InlineInsert(target, settings, "Values", token.end)
            name = next(tokens, None)
            if name is None or not name.keyword:
                return None
            data = _DATA_START.match(text, name.end)
            end = data.end() if data else name.end
            return InlineInsert(target, settings, name.text.decode(), end)
        previous = token.text if token.text == b"." else b""
    return None


@remembered
def find_format(text: bytes) -> str | None:
    """The name in the FORMAT clause that ends a query, if it has one.

    The clause is the last, but for SETTINGS, comments and semicolons. Anything else called
    ``format``, such as a column or a function, is not one.
    """
    tokens = [t for t in tokenize(text) if t.depth == 0 and t.text != b";"]
    for at in range(len(tokens) - 2, 0, -1):
        if tokens[at].keyword == b"FORMAT" and tokens[at + 1].keyword:
            after = tokens[at + 2 : at + 3]
            if not after or after[0].keyword == b"SETTINGS":
                return tokens[at + 1].text.decode()
    return None


@remembered
def find_unsupported(text: bytes) -> str | None:
    """The name of a clause which only a client program or a server can serve, if there is one."""
    insert = split_insert(text)
    sql = text if insert is None else text[: insert.data_start]
    words = [(t.keyword or t.text) for t in tokenize(sql)]
    pairs = set(pairwise(words))
    if (b"INTO", b"OUTFILE") in pairs:
        return "INTO OUTFILE"
    if (b"FROM", b"INFILE") in pairs:
        return "FROM INFILE"
    if words[:1] == [b"INSERT"] and (b"FROM", b"INPUT") in pairs and (b"INPUT", b"(") in pairs:
        return "INSERT … FROM input()"
    return None
