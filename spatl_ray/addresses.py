"""Places that are named by an address, such as s3://bucket/path, and what stands for them here."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from pyarrow import fs

CONNECTED_WITHIN, ANSWERED_WITHIN, ATTEMPTS = 3.0, 6.0, 3
"""Seconds in which an S3 server must take a connection and send something, and how often it is asked.

Arrow's own numbers give up after 6 seconds if nobody is there, and after 100 if somebody is silent.
"""

CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
"""Where credentials come from: environment variables, which no table records."""

_SECRET = re.compile(r"secret|password|token|key", re.IGNORECASE)


def is_address(place: str | Path) -> bool:
    """Whether a place is named by an address, not a path."""
    return "://" in str(place)


def refuse_secrets(address: str) -> str:
    """The address, if no credentials are in it: it stands in tables and logs.

    Raises:
        ValueError: they are; the text does not tell them.
    """
    if not is_address(address):
        return address
    place = urlsplit(address)
    options = [each for each in parse_qsl(place.query) if _is_secret(*each)]
    if place.password is not None or options or (place.scheme == "s3" and place.username):
        shown = f"{place.scheme}://...@{place.netloc.rpartition('@')[2]}{place.path}"
        raise ValueError(
            f"must hold no credentials, which tables and logs would show, but leave them to {CREDENTIALS}; "
            f"got them in {shown!r}"
        )
    return address


def _is_secret(option: str, value: str) -> bool:
    """Whether an option of an address is a credential, or holds one, as USER:PASSWORD@HOST does."""
    return bool(_SECRET.search(option)) or (option == "endpoint_override" and "@" in value)


def refuse_other_than_s3(place: str) -> str:
    """A place for results: a folder, or the address of a bucket, where files appear whole.

    Raises:
        ValueError: it is another address, or holds credentials.
    """
    if not is_address(place):
        return place
    refuse_secrets(place)
    parts = urlsplit(place)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(f"must be a folder, or s3://BUCKET/PATH, got {place!r}")
    return place


def below(address: str, *names: str) -> str:
    """The address of what lies below another one; what is behind its question mark stays there."""
    place = urlsplit(address)
    return urlunsplit(place._replace(path="/".join([place.path.rstrip("/"), *names])))


def working_folder(results: str | Path) -> Path:
    """Where the results of a folder lie on this machine: there, or in a working copy of an address."""
    if not is_address(results):
        return Path(results).absolute()
    address = below(str(results))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    place = urlsplit(address)
    name = Path(place.path).name or place.netloc
    # Options in any order: whoever writes them otherwise must meet the same lock.
    same = place._replace(query=urlencode(sorted(parse_qsl(place.query))))
    digest = hashlib.sha256(urlunsplit(same).encode()).hexdigest()
    return cache / "spatl_ray" / "results" / f"{name}-{digest[:16]}"


def full_name(results: str | Path) -> str:
    """A results folder's name from anywhere: its address, or its absolute path."""
    return str(results) if is_address(results) else str(Path(results).absolute())


def opened(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in it; an S3 server that is silent is given up soon.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: Arrow does not know the address.
    """
    from pyarrow import fs

    files, path = fs.FileSystem.from_uri(address)
    if not isinstance(files, fs.S3FileSystem):
        return files, path
    options = dict(parse_qsl(urlsplit(address).query))
    return (
        fs.S3FileSystem(
            region=files.region,
            scheme=options.get("scheme"),
            endpoint_override=options.get("endpoint_override"),
            tls_ca_file_path=options.get("tls_ca_file_path"),
            allow_bucket_creation=options.get("allow_bucket_creation") == "true",
            allow_delayed_open=True,  # a small file is one request
            connect_timeout=CONNECTED_WITHIN,
            request_timeout=ANSWERED_WITHIN,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        ),
        path,
    )
