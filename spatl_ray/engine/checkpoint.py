"""Where a run was after a round, as a file that holds no code.

Its form is that of `spatl_ray.checksummed`, with arrays server/NAME and driver/NAME. A file appears
whole or not at all, and a damaged one is found out: then the one before it is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from spatl_ray.addresses import is_address, opened
from spatl_ray.checksummed import packed, unpacked
from spatl_ray.errors import StateError
from spatl_ray.parameters import Array, Arrays
from spatl_ray.places import check_place, write_whole

MAGIC = b"SPATLCKPT_01"
_NAME = re.compile(r"round-(\d{6,})\.ckpt")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run was after a round.

    Attributes:
        round: the round.
        server: the server's arrays.
        driver: arrays of what the driver remembers of the clients.
        facts: all else that it carries from round to round, as JSON values.
    """

    round: int
    server: Arrays
    driver: Arrays
    facts: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The file's contents."""
        arrays = {f"server/{name}": array for name, array in self.server.items()}
        arrays |= {f"driver/{name}": array for name, array in self.driver.items()}
        return packed(MAGIC, arrays, {**self.facts, "round": self.round})


def from_bytes(data: bytes, name: str) -> Checkpoint:
    """The checkpoint of a file's contents.

    Args:
        data: the contents.
        name: of the file, for errors.

    Raises:
        StateError: it is damaged, or of another version.
    """
    arrays, facts = unpacked(MAGIC, data, name)
    parts: dict[str, dict[str, Array]] = {"server": {}, "driver": {}}
    try:
        for key, array in arrays.items():
            part, _, own = key.partition("/")
            parts[part][own] = array
        return Checkpoint(int(facts["round"]), parts["server"], parts["driver"], facts)
    except (ValueError, TypeError, LookupError) as error:
        raise StateError(f"{name} must hold a run's arrays, got {error!r}") from error


class Checkpoints:
    """The checkpoints of a run, in one place.

    Args:
        place: a local folder, or a place that Arrow knows by its URI, such as `s3://bucket/path`.
        keep: how many stay.
        mark: a file that is there from the first one on until all are removed, or None.

    Raises:
        StateError: Arrow does not know the place.
    """

    def __init__(self, place: str, keep: int, mark: Path | None = None) -> None:
        self._place = place
        self._keep = keep
        self._mark = mark
        with self._reported("be reached"):
            if is_address(place):
                self._files, self._folder = opened(place)
            else:
                self._files, self._folder = fs.LocalFileSystem(), str(Path(place).absolute())
        self._remote = not isinstance(self._files, fs.LocalFileSystem)  # also of file://

    def check(self) -> None:
        """Refuse a place where nothing can be saved; of a remote one, one that cannot be reached.

        Raises:
            StateError: it is such a place.
            ConfigError: it is no place for a folder.
        """
        if self._remote:
            self.rounds()
        else:
            check_place(Path(self._path(0)), "checkpoints.folder")

    def rounds(self) -> list[int]:
        """The rounds of the checkpoints that are there, in order.

        Raises:
            StateError: the place cannot be reached.
        """
        with self._reported("be read"):
            chosen = fs.FileSelector(self._folder, allow_not_found=True)
            found = [_NAME.fullmatch(each.base_name) for each in self._files.get_file_info(chosen)]
        return sorted(int(match[1]) for match in found if match)

    def save(self, checkpoint: Checkpoint) -> list[int]:
        """Write one; older ones than the last few go. Returns the rounds of those that stay.

        Raises:
            StateError: it cannot be written; those that were there stay.
        """
        path, data = self._path(checkpoint.round), checkpoint.to_bytes()
        with self._reported("be written"):
            if self._remote:  # appears when it is closed
                self._files.create_dir(self._folder)
                with self._files.open_output_stream(path) as stream:
                    stream.write(data)
            else:
                write_whole(Path(path), data)
            if self._mark is not None and not self._mark.exists():
                write_whole(self._mark, b"")
        self._sweep()
        before = [round_ for round_ in self.rounds() if round_ <= checkpoint.round]
        for round_ in set(self.rounds()) - set(before[-self._keep :]):
            self.remove(round_)
        return before[-self._keep :]

    def load(self, round_: int) -> Checkpoint:
        """The checkpoint after a round.

        Raises:
            StateError: it is not there, or damaged.
        """
        path = self._path(round_)
        with self._reported("be read"), self._files.open_input_file(path) as file:
            data = file.read()
        found = from_bytes(data, f"{self._place}/{Path(path).name}")
        if found.round != round_:
            raise StateError(f"{path} must be of round {round_}, got one of round {found.round}")
        return found

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest one that is whole, or None; and what is wrong with newer ones."""
        faults: list[str] = []
        for round_ in reversed(self.rounds()):
            try:
                return self.load(round_), faults
            except StateError as error:
                faults.append(str(error))
        return None, faults

    def remove(self, round_: int) -> None:
        """Remove one."""
        with self._reported("be removed"):
            self._files.delete_file(self._path(round_))

    def clear(self) -> None:
        """Remove all, and the folder if nothing else is in it."""
        if self._mark is not None:  # First: without it, none are missed.
            with self._reported("be removed"):
                self._mark.unlink(missing_ok=True)
        for round_ in self.rounds():
            self.remove(round_)
        self._sweep()
        folder = Path(self._folder)
        if not self._remote and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

    def _sweep(self) -> None:
        """Remove what processes that were killed had begun to write."""
        if not self._remote:
            for part in Path(self._folder).glob(".round-*.ckpt.*"):
                part.unlink(missing_ok=True)

    def _path(self, round_: int) -> str:
        return f"{self._folder}/round-{round_:06d}.ckpt"

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Turn what the file system refuses into an error that names the place."""
        try:
            yield
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StateError(
                f"checkpoints.folder must {what}, got {self._place!r}: {error}"
            ) from error
