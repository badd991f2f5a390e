"""A server of the S3 protocol on loopback, and what lies in its buckets."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer
from pyarrow import fs

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)


class Server:
    """The server; what is stored outlives `stop` and `start`."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    def address(self, bucket: str, path: str = "results") -> str:
        """Of a path in a bucket."""
        return f"s3://{bucket}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def make(self, bucket: str) -> str:
        """The address of a path in a new bucket."""
        self.client("s3").create_bucket(Bucket=bucket)
        return self.address(bucket)

    def client(self, service: str) -> object:
        """Of any of its services."""
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def stop(self) -> None:
        """Nothing listens any more."""
        self._server.stop()

    def start(self) -> None:
        """It listens again, at the same port."""
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    @contextmanager
    def strict(self) -> Iterator[Mapping[str, str]]:
        """While entered, keys must be valid; given are those of somebody who may read, not write."""
        iam = self.client("iam")
        iam.create_user(UserName="reader")
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        allowed = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        self._let_in(0)
        try:
            yield {
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            }
        finally:
            self._let_in(10**9)

    def _let_in(self, requests: int) -> None:
        """Whoever comes, for so many requests."""
        url = f"http://127.0.0.1:{self.port}/moto-api/reset-auth"
        headers = {"Content-Type": "text/plain"}
        with urllib.request.urlopen(
            urllib.request.Request(url, str(requests).encode(), headers, method="POST")
        ) as answer:
            answer.read()


def objects(address: str) -> dict[str, bytes]:
    """What lies at an address, by path below it."""
    files, base = fs.FileSystem.from_uri(address)
    found = {}
    for each in files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True)):
        if each.type == fs.FileType.File:
            with files.open_input_file(each.path) as file:
                found[each.path.removeprefix(f"{base}/")] = file.read()
    return found


def copied(address: str, folder: Path) -> Path:
    """A folder with what lies at an address."""
    for name, content in objects(address).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
