"""ClickHouse exceptions: read from the engine's text, written as a server writes them."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
# No blanks at their ends: with `\s*` there, a message's own blanks would each be tried as a start.
_TRAILER = re.compile(r"\(version [^()]*(?:\([^()]*\))?\)\.?$")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)$")

_BAD_REQUEST = frozenset(
    {
        6,
        7,
        20,
        12,
        15,
        25,
        26,
        27,
        32,
        33,
        36,
        38,
        41,
        42,
        43,
        44,
        53,
        62,
        69,
        70,
        72,
        108,
        117,
        131,
    }
    | {167, 168, 190, 358, 372, 373, 376, 427, 441, 456, 457, 675, 676, 374, 321}
)
_NOT_FOUND = frozenset({46, 47, 50, 56, 60, 63, 73, 81, 115, 511})
_STATUS = (
    dict.fromkeys(_BAD_REQUEST, 400)
    | dict.fromkeys(_NOT_FOUND, 404)
    | {194: 401, 192: 403, 193: 403, 516: 403, 159: 408, 229: 413, 48: 501}
)


class DBError(Exception):
    """A ClickHouse exception (``DB::Exception``): its number, symbolic name and message."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(code, name, message)
        self.code = code
        self.name = name
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status a ClickHouse server answers with; 500 unless it has a better one."""
        return _STATUS.get(self.code, 500)

    def body(self, version: str) -> str:
        """The line a server of this ``version`` sends."""
        return (
            f"Code: {self.code}. DB::Exception: {self.message} ({self.name})"
            f" (version {version} (embedded))\n"
        )


def parse_exception(text: str) -> DBError:
    """Read the engine's ``Code: N. DB::Exception: … (NAME)``, with or without a version trailer."""
    found = _CODE.search(text)
    if found is None:
        return DBError(1001, "STD_EXCEPTION", text.strip())
    message = _TRAILER.sub("", text[found.end() :].strip()).rstrip()
    name = _NAME.search(message)
    if name is None:
        return DBError(int(found[1]), "UNKNOWN_EXCEPTION", message)
    return DBError(int(found[1]), name[1], message[: name.start()].rstrip())


def not_implemented(what: str) -> DBError:
    """The answer to a request for something only a ClickHouse server does."""
    return DBError(
        48,
        "NOT_IMPLEMENTED",
        f"{what} is not supported by the embedded ClickHouse; a ClickHouse server does it",
    )
