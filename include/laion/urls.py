"""URLs of sources and of the staging area: their kinds, and how they are shown to people."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

HIDDEN = "***"

_LOGIN = re.compile(r"(?<=://)[^/?#\s]*@")
# A query ends where the next URL of a list begins, at a blank or at a quote; a mark or two before
# them are the sentence's.
_QUERY = re.compile(r"\?[^\s'\"<>?]*?=[^\s'\"<>]*?(?=,\s*\w+://|[).,;:]{0,2}(?:[\s'\"<>]|$))")


def url_scheme(url: str) -> str:
    """Return the scheme in lower case, or nothing for what is no URL."""
    try:
        return urlsplit(url).scheme.lower()
    except ValueError:
        return ""


def is_local(url: str) -> bool:
    """Return whether `url` is read from this machine's file system."""
    return url_scheme(url) == "file"


def is_s3(url: str) -> bool:
    """Return whether `url` names an object, or a prefix of objects, on S3."""
    return url_scheme(url) == "s3"


def local_path(url: str) -> Path:
    """Return the path that a `file://` URL names."""
    return Path(url2pathname(urlsplit(url).path))


def join_url(base: str, path: str) -> str:
    """Return the URL of `path` below `base`; a query, such as a signature, stays at the end."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))


def hide_credentials(text: str) -> str:
    """Return `text` with what may be secret in its URLs replaced by `***`.

    That is user name and password, and the whole query: signed URLs keep their key there.
    """
    return _QUERY.sub(f"?{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))
