"""Folders, and addresses that Arrow knows, such as s3://bucket/path?endpoint_override=HOST:PORT&scheme=http."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

_SECRET = re.compile(
    r"(^|&)[^=&]*(secret|password|token|key)[^=&]*=|endpoint_override=[^&]*(@|%40)", re.IGNORECASE
)
"""In the options of an address; others name servers, which may be called so, but not with a user (`@`)."""


class LoadError(Exception):
    """A results folder that cannot be read, or that does not hold what was asked for."""


@dataclass(frozen=True)
class Place:
    """A folder or file.

    Attributes:
        path: of it in its file system.
        files: the file system.
        scheme: of the address that it was named by; "" for a path.
    """

    path: str
    files: fs.FileSystem = field(compare=False, repr=False)
    scheme: str = ""

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.path.rstrip('/')}/{name}", self.files, self.scheme)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}" if self.scheme else str(Path(self.path))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> Place:
        """The folder that it is in."""
        return Place(self.path.rpartition("/")[0], self.files, self.scheme)

    def is_folder(self) -> bool:
        """Whether it is a folder that is there."""
        with _reported(str(self)):
            return bool(self.files.get_file_info(self.path).type == fs.FileType.Directory)

    def children(self, deep: bool = False) -> list[Place]:
        """What is in the folder, or also in those below it; nothing, if it is not there."""
        chosen = fs.FileSelector(self.path, allow_not_found=True, recursive=deep)
        with _reported(str(self)):
            return [
                Place(found.path, self.files, self.scheme)
                for found in self.files.get_file_info(chosen)
            ]


def place_of(results: str | Path) -> Place:
    """The place that a path or an address names; an S3 server that is silent is given up after seconds.

    Raises:
        LoadError: Arrow does not know the address, or it holds credentials.
    """
    text = str(results)
    if "://" not in text:
        return Place(str(Path(text)), fs.LocalFileSystem())
    with _reported(text):
        parts = urlsplit(text)
    if parts.username or parts.password or _SECRET.search(parts.query):
        raise LoadError(
            "an address must hold no credentials, but leave them to AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; got them for {parts.netloc.rpartition('@')[2]}"
        )
    with _reported(text):
        files, path = fs.FileSystem.from_uri(text)
        if isinstance(files, fs.S3FileSystem):
            files = _impatient(files.region, dict(parse_qsl(parts.query)))
    return Place(path.rstrip("/"), files, parts.scheme)


def output(results: str | Path, name: str) -> Path:
    """Where something made of results goes that is not told where: into their folder, or the current one."""
    return Path(name) if "://" in str(results) else Path(results) / name


def _impatient(region: str, options: dict[str, str]) -> fs.S3FileSystem:
    """The file system of an S3 server of which Arrow would wait for minutes if it is silent."""
    return fs.S3FileSystem(
        region=region,
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        tls_ca_file_path=options.get("tls_ca_file_path"),
        connect_timeout=3.0,
        request_timeout=6.0,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


@contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LoadError(f"{name} cannot be read: {error}") from error
