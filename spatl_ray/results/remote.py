"""A run's results at an address: its files there are those of the working copy here, after each push.

What is there is the truth: a run is fetched before it goes on. An object appears whole, and objects
come and go in an order in which a reader sees a prefix of the rounds and no row twice.
"""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from spatl_ray.addresses import (
    CREDENTIALS,
    is_address,
    opened,
    refuse_other_than_s3,
    working_folder,
)
from spatl_ray.errors import ConfigError, ResultsError
from spatl_ray.results.schema import TABLES

Stamp = tuple[int, int, int]
"""Of a file: another one, if its contents may be others."""

PIECE = 2**20
"""Bytes that are fetched at once."""

_HERE_ONLY = ("lock",)


class Remote:
    """A run at an address.

    Args:
        address: of the results.
        run_id: of the run.

    Raises:
        ConfigError: nothing can be read there.

    Attributes:
        address: of the results.
    """

    def __init__(self, address: str, run_id: str) -> None:
        self.address, self._run_id = address, run_id
        self._here = working_folder(address)
        own = f"run_id={run_id}"
        rows = [f"{table}/{own}" for table in TABLES if table != "runs"]
        # The row of table runs last: what it says is there then.
        self._folders = [*rows, f"models/{own}", f"bookkeeping/{own}", f"runs/{own}"]
        self._profile = f"profiles/{run_id}.json"
        with self._tried("read"):
            self._files, self._base = opened(address)
        self._look()

    def _look(self) -> None:
        """See what is there; again once the run is locked, as its last process may have been at work."""
        with self._tried("read"):
            self._pushed: dict[str, Stamp | None] = dict.fromkeys(self._listed())

    def check(self) -> None:
        """Refuse an address where nothing can be written, by trying.

        Raises:
            ConfigError: it is such an address.
        """
        probe = self._there(f".probe-{self._run_id}")
        with self._tried("written"):
            with self._files.open_output_stream(probe) as stream:
                stream.write(b"\0")
            self._files.delete_file(probe)

    def begin(self) -> None:
        """Before a run begins: of an earlier one, no more than its row is here.

        Raises:
            ConfigError: that cannot be read.
            ResultsError: the working copy cannot be written.
        """
        self._look()
        if self.is_taken():
            self.pull(("runs",))
        else:
            self.forget()

    def is_taken(self) -> bool:
        """Whether the run has rows there."""
        return any(name.split("/")[0] in TABLES for name in self._pushed)

    def pull(self, only: Collection[str] = ()) -> None:
        """Replace what is here of the run, client states apart, by what is there.

        Args:
            only: the tables that are fetched; none means all, and what is beside them.

        Raises:
            ResultsError: there is no such run, or the working copy cannot be written.
            ConfigError: it cannot be read.
        """
        self._look()
        if not self.is_taken():
            raise ResultsError(
                f"RUN must be a run in {self.address}, got {self._run_id!r}; there are: {self._others()}"
            )
        self.forget()
        for name in self._pushed:
            if not only or name.split("/")[0] in only:
                path = self._here / name
                with self._copying():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                with self._tried("read"):
                    self._fetch(name, path)
                self._pushed[name] = _stamp(path)

    def forget(self) -> None:
        """Remove what is here of the run, client states and its lock apart."""
        with self._copying():
            for folder in self._folders:
                for path in (self._here / folder).glob("*"):
                    if path.name not in _HERE_ONLY:
                        path.unlink()
            (self._here / self._profile).unlink(missing_ok=True)

    def push(self) -> None:
        """Make what is there what is here.

        Raises:
            ResultsError: it cannot be written, or what was there is gone.
        """
        with self._going_on():
            self._refuse_lost()
            for folder in self._folders:
                self._push(folder, self._found(folder))
            if (profile := self._here / self._profile).exists():
                self._push("profiles", {self._profile: _stamp(profile)})

    def _refuse_lost(self) -> None:
        """Look whether everything that was pushed is still there."""
        if gone := sorted(self._pushed.keys() - set(self._listed())):
            raise ResultsError(
                f"what run {self._run_id!r} has written must stay in {self.address} while it goes on, got no "
                f"{gone[0]} any more: it was removed, and tables without its rows would look whole"
            )

    def _push(self, folder: str, here: Mapping[str, Stamp]) -> None:
        """One folder's files.

        Where one file is left of several, it has their rows, and stands for them under a hidden name until
        they are gone (as in `spatl_ray.results.files.compact`).
        """
        there = [name for name in self._pushed if name.startswith(f"{folder}/")]
        gone = sorted(set(there) - here.keys(), reverse=True)
        changed = [name for name, stamp in here.items() if self._pushed.get(name) != stamp]
        is_table = folder.split("/")[0] in TABLES
        is_one = is_table and bool(gone and changed) and len(here) == 1
        hidden = _hidden(changed[0]) if is_one else ""
        if is_one:
            self._upload(changed[0], hidden)
        for name in gone:
            if name != hidden:
                self._remove(name)
        for name in changed:
            self._upload(name, name)
            self._pushed[name] = here[name]
        if is_one:
            self._remove(hidden)

    def _fetch(self, name: str, path: Path) -> None:
        with self._files.open_input_stream(self._there(name)) as there, path.open("wb") as here:
            shutil.copyfileobj(there, here, PIECE)

    def _upload(self, source: str, name: str) -> None:
        # Not by copy_files, which passes over what is refused when an object is closed. In one piece: what
        # ends between two would leave half an object.
        content = pa.memory_map(str(self._here / source)).read_buffer()
        with self._files.open_output_stream(self._there(name)) as stream:
            stream.write(content)
        self._pushed[name] = None

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):  # removed by a request that was sent twice
            self._files.delete_file(self._there(name))
        del self._pushed[name]

    def _found(self, folder: str) -> dict[str, Stamp]:
        """The files of a folder here, by name, but for those that are being written."""
        paths = sorted((self._here / folder).glob("[!.]*"))
        return {f"{folder}/{p.name}": _stamp(p) for p in paths if p.name not in _HERE_ONLY}

    def _listed(self) -> list[str]:
        """The names of the run's files there."""
        found = []
        for folder in self._folders:
            chosen = fs.FileSelector(self._there(folder), allow_not_found=True)
            found += self._files.get_file_info(chosen)
        found += self._files.get_file_info([self._there(self._profile)])
        return [
            posixpath.relpath(each.path, self._base)
            for each in found
            if each.type == fs.FileType.File
        ]

    def _others(self) -> str:
        """The runs there, in words."""
        with self._tried("read"):
            chosen = fs.FileSelector(self._there("runs"), allow_not_found=True)
            names = [each.base_name for each in self._files.get_file_info(chosen)]
        return ", ".join(sorted(name.removeprefix("run_id=") for name in names)) or "none"

    def _there(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}"

    @contextmanager
    def _tried(self, what: str) -> Iterator[None]:
        """Turn what is refused before a run begins, or goes on, into an error that names the field."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ConfigError(
                f"results.folder must be an address that can be {what}, with credentials from {CREDENTIALS}, "
                f"got {self.address!r}: {error}"
            ) from error

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """Turn what is refused here into an error that says what to set."""
        try:
            yield
        except OSError as error:
            raise ResultsError(
                f"XDG_CACHE_HOME must be a folder that can be written, for working copies of results at an "
                f"address, got {self._here}: {error}"
            ) from error

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Turn what is refused while a run goes on into an error that says how to go on."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise ResultsError(
                f"results.folder must be an address that can be written, got {self.address!r}: {error}; rows "
                f"of run {self._run_id!r} so far are in {self._here}, and `spatl resume` goes on from "
                "what is at the address"
            ) from error


def remote_of(results: str | Path, run_id: str) -> Remote | None:
    """A run at an address; None for one in a folder.

    Raises:
        ConfigError: nothing can be read there, or it is no address for results.
    """
    if not is_address(results):
        return None
    try:
        address = refuse_other_than_s3(str(results))
    except ValueError as error:
        raise ConfigError(f"results.folder {error}") from error
    return Remote(address, run_id)


def _hidden(name: str) -> str:
    """What stands for a file, and for others with it."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/.{file.removesuffix('.parquet')}.compacted"


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
