"""Checkpoints of a pre-training: whole files, of one set of options."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from spatl_ray.errors import StateError
from spatl_ray.places import write_whole


class Checkpoints:
    """Files of a folder that belong to one pre-training.

    Args:
        folder: of the files; it is made when the first is written.
        key: of options and data; what another key wrote is refused.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def read(self, name: str) -> dict[str, Any] | None:
        """What was written under a name, or None.

        Raises:
            StateError: it is damaged, or of other options or data.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True)
        except (RuntimeError, OSError, EOFError, BadZipFile, UnpicklingError) as error:
            raise StateError(f"{path} must be a whole checkpoint, got {error}") from error
        if saved.get("key") != self.key:
            raise StateError(
                f"{path} must be of these options and this data, got one of others: choose another "
                "folder, or remove this one"
            )
        return saved

    def write(self, name: str, **values: Any) -> None:
        """Write values; the file appears whole or not at all, also if the machine stops."""
        file = BytesIO()
        torch.save({"key": self.key, **values}, file)
        write_whole(self._path(name), file.getvalue())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"
