"""S3: how it is reached, and requests to it that carry a signature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from laion.errors import BadSetting, BadSource

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class S3Options:
    """Credentials and place of an S3.

    What is empty is found as every AWS client finds it: in the environment, in `~/.aws`, from the
    role of the machine. An `endpoint_url` is that of an S3 of one's own, such as MinIO.
    """

    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    endpoint_url: str = ""
    region: str = ""

    def object_url(self, uri: str) -> str:
        """Return the web address of an `s3://` URI."""
        bucket, key = split_uri(uri)
        endpoint, _ = find_place(self)
        path = quote(key, safe="/~")
        # A wildcard certificate covers no bucket with a dot in its name.
        if _is_amazon(endpoint) and "." not in bucket:
            return f"https://{bucket}.{urlsplit(endpoint).netloc}/{path}"
        return f"{endpoint.rstrip('/')}/{bucket}/{path}"

    def credentials(self) -> ReadOnlyCredentials | None:
        """Return key, secret and token as they are now, or None where there are none."""
        found = find_credentials(self)
        return None if found is None else found.get_frozen_credentials()

    def signature(self) -> AuthBase | None:
        """Return what signs requests to objects, or None where there are no credentials."""
        return None if find_credentials(self) is None else _Signature(self)

    def filesystem_options(self) -> dict[str, Any]:
        """Return what fsspec takes to open this S3."""
        endpoint, region = find_place(self)
        return {
            "key": self.key or None,
            "secret": self.secret or None,
            "token": self.token or None,
            "endpoint_url": None if _is_amazon(endpoint) else endpoint,
            "anon": find_credentials(self) is None,
            "client_kwargs": {"region_name": region},
            # s3fs itself tries five times.
            "config_kwargs": {"retries": {"max_attempts": 1}},
            # Other workers write too.
            "use_listings_cache": False,
        }


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI. Raises BadSource."""
    parts = urlsplit(uri)
    if not parts.netloc or "@" in parts.netloc or parts.query:
        raise BadSource(
            "an S3 URI is s3://bucket/prefix, without user, password or query; credentials belong "
            "into the Airflow connection"
        )
    return parts.netloc, parts.path.lstrip("/")


class _Signature(AuthBase):
    """Signs requests as S3 wants it (AWS Signature Version 4)."""

    def __init__(self, options: S3Options) -> None:
        self._options = options

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        signed = AWSRequest(method=request.method, url=request.url)
        _, region = find_place(self._options)
        S3SigV4Auth(self._options.credentials(), "s3", region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


@cache
def find_credentials(options: S3Options) -> Credentials | None:
    """Return the credentials of an S3, which may be renewed from time to time; None without."""
    session = _open_session()
    if options.key:
        session.set_credentials(options.key, options.secret, options.token or None)
    return session.get_credentials()


@cache
def find_place(options: S3Options) -> tuple[str, str]:
    """Return endpoint and region."""
    session = _open_session()
    region = options.region or session.get_config_variable("region") or DEFAULT_REGION
    client = session.create_client(
        "s3", region_name=region, endpoint_url=options.endpoint_url or None
    )
    return client.meta.endpoint_url, region


def _is_amazon(endpoint: str) -> bool:
    return ".amazonaws.com" in urlsplit(endpoint).netloc


def _open_session() -> Any:
    with s3_packages():
        from botocore.session import Session
    return Session()


@contextmanager
def s3_packages() -> Iterator[None]:
    """Say what to install when an import inside the block fails. Raises BadSetting."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise BadSetting(
            "S3 needs packages that are not installed: pip install 'laion-clickhouse[s3]'"
        ) from missing
