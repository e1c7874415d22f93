"""What can be learnt from the text of a statement without running it. Pure functions on bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from itertools import dropwhile, islice, pairwise, tee, zip_longest
from typing import NamedTuple, TypeVar

T = TypeVar("T")

SHORT_BYTES = 16 * 1024
"""A text of this length is taken apart in some milliseconds, whatever is in it."""

# ClickHouse's own rules. A quote that is never closed takes the rest of the text with it. If it
# were a sign, each later quote would be searched to the end for its own close, in vain again, and
# all of that would take the square of the text's length.
_TOKEN = re.compile(
    rb"""
      (?P<blank> \s+ | --[^\n]* | \#[ !][^\n]* )
    | (?P<comment> /\* )
    | (?P<string> '(?:[^'\\]++|\\.|'')*+' )
    | (?P<quoted> "(?:[^"\\]++|\\.|"")*+" | `(?:[^`\\]++|\\.|``)*+` )
    | (?P<unclosed> ['"`].* )
    | (?P<tag> \$\w*+\$ )
    | (?P<word> (?:[A-Za-z_]|\$\w)[\w$]* )
    | (?P<number> [0-9][\w.]* )
    | (?P<sign> . )
    """,
    re.DOTALL | re.VERBOSE,
)
_COMMENT_MARK = re.compile(rb"/\*|\*/")
_TAG_BUT_FOR_ITS_END = re.compile(rb"\$\w*+(?=\$)")
_WORD_WITH_DOLLARS = re.compile(rb"\$\w[\w$]*")
_DATA_START = re.compile(rb"[ \t\f]*(?:\r?\n)?")
_OPEN, _CLOSE = frozenset(b"([{"), frozenset(b")]}")
_NO_INLINE_DATA = frozenset({b"SELECT", b"WITH", b"FROM", b"WATCH"})
_TELLING_PAIRS = frozenset(
    {(b"INTO", b"OUTFILE"), (b"FROM", b"INFILE"), (b"FROM", b"INPUT"), (b"INPUT", b"(")}
)
_REMEMBERED = 256


class Token(NamedTuple):
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
        return remember(text) if len(text) <= SHORT_BYTES else find(text)

    return look


def tokenize(text: bytes) -> Iterator[Token]:
    """The tokens of ``text``, lazily, so that data after an INSERT are never looked at."""
    heredocs = _Heredocs(text)
    at = depth = 0
    while found := _TOKEN.match(text, at):
        kind, start, at = found.lastgroup or "", at, found.end()
        if kind == "blank":
            continue
        if kind == "comment":
            at = _end_of_comment(text, at)
            continue
        if kind == "tag":
            kind, at = heredocs.complete(start, at)
        sign = text[start] if kind == "sign" else 0
        if sign in _CLOSE:
            depth -= 1
        yield Token(kind, text[start:at], start, at, depth)
        if sign in _OPEN:
            depth += 1


def _end_of_comment(text: bytes, start: int) -> int:
    """Where the comment ends whose inside begins at ``start``; comments may be nested."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == b"/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


class _Heredocs:
    """What begins with a tag: a heredoc, such as ``$tag$ … $tag$``, if the tag comes again.

    Where each tag comes last is noted once: to search the rest of the text for every one of them
    would take the square of its length.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text

    def complete(self, start: int, end: int) -> tuple[str, int]:
        """The kind of the token that begins with the tag from ``start`` to ``end``, and its end."""
        tag = self._text[start:end]
        if self._last_starts[tag] >= end:
            return "string", self._text.index(tag, end) + len(tag)
        if word := _WORD_WITH_DOLLARS.match(self._text, start):
            return "word", word.end()
        return "sign", start + 1

    @cached_property
    def _last_starts(self) -> dict[bytes, int]:
        tags = _TAG_BUT_FOR_ITS_END.finditer(self._text)
        return {tag[0] + b"$": tag.start() for tag in tags}


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
    tokens = (t for t in tokenize(text) if t.depth == 0 and t.text != b";")
    next(tokens, None)  # No query begins with the clause.
    found = None
    for clause, name, after in _in_threes(tokens):
        ends_query = after is None or after.keyword == b"SETTINGS"
        if clause.keyword == b"FORMAT" and name and name.keyword and ends_query:
            found = name.text.decode()
    return found


@remembered
def find_unsupported(text: bytes) -> str | None:
    """The name of a clause which only a client program or a server can serve, if there is one."""
    insert = split_insert(text)
    sql = text if insert is None else text[: insert.data_start]
    words = ((t.keyword or t.text) for t in tokenize(sql))
    found = _TELLING_PAIRS.intersection(pairwise(words))
    if (b"INTO", b"OUTFILE") in found:
        return "INTO OUTFILE"
    if (b"FROM", b"INFILE") in found:
        return "FROM INFILE"
    reads_input = {(b"FROM", b"INPUT"), (b"INPUT", b"(")} <= found
    if reads_input and next(tokenize(sql)).keyword == b"INSERT":
        return "INSERT … FROM input()"
    return None


def has_second_statement(text: bytes) -> bool:
    """Whether a semicolon is followed by more than semicolons and comments."""
    if b";" not in text.rstrip(b"; \r\n\t"):
        return False
    of_first = dropwhile(lambda t: t.text == b";", tokenize(text))
    of_second = dropwhile(lambda t: t.text != b";", of_first)
    return any(t.text != b";" for t in of_second)


def _in_threes(tokens: Iterator[Token]) -> Iterator[tuple[Token, Token | None, Token | None]]:
    """Each token with the two after it, and never more of them in memory."""
    first, second, third = tee(tokens, 3)
    return zip_longest(first, islice(second, 1, None), islice(third, 2, None))
