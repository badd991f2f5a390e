"""Where the files of a data set are looked for, how they are got, and what is said if they lack."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from spatl_ray.errors import DataError

SYSTEM_FOLDER = Path("/usr/share/datasets")
"""Where Debian's packages dataset-* put their files."""


@dataclass(frozen=True)
class Files:
    """The files of a data set.

    Attributes:
        name: of the data set.
        needs: for each file the patterns that it may match in a place; errors show the first.
        subfolders: of data.root, SPATL_DATA and ./data, in which the files may lie.
        kind: what they are, for the error.
        cure: how to get them, unless torchvision does.
        torchvision: the class of torchvision.datasets that downloads them, or None.
        calls: keyword arguments of each call of that class that it takes.
        system: subfolder of the system's data folder, or None.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    subfolders: tuple[str, ...]
    kind: str
    cure: str = ""
    torchvision: str | None = None
    calls: tuple[Mapping[str, str], ...] = ({},)
    system: str | None = None

    def lacking(self, place: Path) -> list[str]:
        """The files that are not in `place`."""
        return [
            patterns[0]
            for patterns in self.needs
            if not any(path.is_file() for pattern in patterns for path in place.glob(pattern))
        ]

    def places(self, root: str | None) -> tuple[Path, ...]:
        """The folders in which the files are looked for, first one first.

        Args:
            root: the only folder to look in (and its usual subfolders); None looks in SPATL_DATA,
                ./data and the system's folder.
        """
        own = os.environ.get("SPATL_DATA")
        bases = [Path(base) for base in ((own, "data") if root is None else (root,)) if base]
        system = [SYSTEM_FOLDER / self.system] if self.system and root is None else []
        return (*(base / sub for base in bases for sub in self.subfolders), *system)

    def find(self, places: Sequence[Path]) -> Path | None:
        """The first of `places` that holds all files, or None."""
        return next((place for place in places if not self.lacking(place)), None)

    def locate(self, root: str | None) -> Path:
        """The folder that holds the files; without a root they are downloaded if they lack.

        Raises:
            DataError: they are in none of the places, and could not be downloaded.
        """
        places, failure = self.places(root), ""
        folder = self.find(places)
        if folder is None and root is None and self.torchvision is not None:
            failure = self._download(self.torchvision)
            folder = self.find(places)
        if folder is None:
            raise self.not_found(places, failure)
        return folder

    def _download(self, class_: str) -> str:
        """Let torchvision download into SPATL_DATA, or ./data; a line that says what failed."""
        folder = os.environ.get("SPATL_DATA") or "data"
        try:
            # Imported only here: torchvision takes seconds to import.
            source = getattr(importlib.import_module("torchvision.datasets"), class_)
            for arguments in self.calls:
                source(folder, download=True, **arguments)
        except (ImportError, OSError, RuntimeError, HTTPException) as error:
            return f"torchvision's download into {folder} failed: {type(error).__name__}: {error}"
        return ""

    def not_found(self, places: Sequence[Path], also: str = "") -> DataError:
        """The error that lists every place, what it lacks, and how to get the files.

        Args:
            places: the folders that were looked at.
            also: what else was tried, e.g. a failed download.
        """
        lines = [f"{self.name} needs its {self.kind}, found in none of:"]
        for place in places:
            lacks = (
                f"lacks {', '.join(self.lacking(place))}" if place.is_dir() else "no such folder"
            )
            lines.append(f"  {place.absolute()}: {lacks}")
        lines += [also] if also else []
        where = "data.root=FOLDER (or SPATL_DATA=FOLDER in the environment)"
        lines.append(f"get them with {', or with '.join(self._cures())} and {where}")
        return DataError("\n".join(lines))

    def _cures(self) -> list[str]:
        cures = [self.cure] if self.cure else []
        if self.torchvision is not None:
            calls = (
                f"`torchvision.datasets.{self.torchvision}(FOLDER, "
                + "".join(f"{key}={value!r}, " for key, value in arguments.items())
                + "download=True)`"
                for arguments in self.calls
            )
            cures.append(" and ".join(calls))
        return cures
