"""An S3 on 127.0.0.1: moto's server, which stands for a real one. It is not Amazon's S3."""

from __future__ import annotations

import json
import logging
import uuid
from types import TracebackType
from typing import Any

import requests

from laion.s3 import S3Options

ALL_OF_S3 = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


class S3Server:
    """Runs in this process, on a free port. A context manager.

    Lets in one user, and only requests that are rightly signed.
    """

    key = secret = "unknown"

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._server.get_host_and_port())

    @property
    def options(self) -> S3Options:
        return S3Options(self.key, self.secret, endpoint_url=self.url)

    @property
    def airflow_connection(self) -> dict[str, Any]:
        """What belongs, as JSON, into ``AIRFLOW_CONN_LAION_S3``."""
        return {
            "conn_type": "aws",
            "login": self.key,
            "password": self.secret,
            "extra": {"endpoint_url": self.url, "region_name": "us-east-1"},
        }

    @property
    def environment(self) -> dict[str, str]:
        """What tells every AWS client the same."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL_S3": self.url,
        }

    def client(self, service: str = "s3") -> Any:
        """A botocore client of the server."""
        from botocore.session import Session

        session = Session()
        session.set_credentials(self.key, self.secret)
        return session.create_client(service, region_name="us-east-1", endpoint_url=self.url)

    def make_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"test-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name

    def __enter__(self) -> S3Server:
        self._server.start()
        iam = self.client("iam")
        iam.create_user(UserName="laion")
        policy = json.dumps({"Version": "2012-10-17", "Statement": [ALL_OF_S3]})
        iam.put_user_policy(UserName="laion", PolicyName="s3", PolicyDocument=policy)
        made = iam.create_access_key(UserName="laion")["AccessKey"]
        self.key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        self._check_signatures(after=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._check_signatures(after=float("inf"))
        self._server.stop()

    def _check_signatures(self, after: float) -> None:
        """Let moto check credentials, once it has answered so many requests."""
        requests.post(f"{self.url}/moto-api/reset-auth", data=str(after).encode(), timeout=10)
