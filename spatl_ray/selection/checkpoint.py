"""Checkpoints of a pre-training: whole files without code, of one set of options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spatl_ray.checksummed import packed, unpacked
from spatl_ray.errors import StateError
from spatl_ray.parameters import Array, Arrays
from spatl_ray.places import write_whole

MAGIC = b"SPATLAGENT01"


class Checkpoints:
    """Files of a folder that belong to one pre-training; their form is that of `spatl_ray.checksummed`.

    Args:
        folder: of the files; it is made when the first is written.
        key: of options and data; what another key wrote is refused.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def read(self, name: str) -> tuple[dict[str, Array], Mapping[str, Any]] | None:
        """Arrays and facts that were written under a name, or None.

        Raises:
            StateError: they are damaged, or of other options or data.
        """
        path = checkpoint_file(self.folder, name)
        if not path.exists():
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateError(f"{path} must be a whole checkpoint, got {error}") from error
        arrays, facts = unpacked(MAGIC, data, str(path))
        if facts.get("key") != self.key:
            raise StateError(
                f"{path} must be of these options and this data, got one of others: choose another "
                "folder, or remove this one"
            )
        return arrays, facts

    def write(self, name: str, arrays: Arrays, **facts: Any) -> None:
        """Write arrays and facts (JSON); the file appears whole or not at all, also if the machine stops.

        Raises:
            StateError: it cannot be written; an earlier one stays.
        """
        path, data = (
            checkpoint_file(self.folder, name),
            packed(MAGIC, arrays, {"key": self.key, **facts}),
        )
        try:
            write_whole(path, data)
        except OSError as error:
            raise StateError(f"the checkpoint {path} cannot be written: {error}") from error


def checkpoint_file(folder: Path, name: str) -> Path:
    """Where a folder's checkpoint of a name lies."""
    return folder / f"{name}.ckpt"


def arrays_of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Tensors as arrays named PREFIX/NAME."""
    return {f"{prefix}/{name}": tensor.numpy(force=True) for name, tensor in tensors.items()}


def tensors_of(prefix: str, arrays: Arrays) -> dict[str, Tensor]:
    """The tensors of `arrays_of`."""
    own = {
        name.removeprefix(f"{prefix}/"): a
        for name, a in arrays.items()
        if name.startswith(f"{prefix}/")
    }
    return {name: torch.from_numpy(array) for name, array in own.items()}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of its parameters, named INDEX/NAME."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{i}/{name}": tensor for i, own in state.items() for name, tensor in own.items()}


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `optimizer_tensors` gave; its options stay those that it was made with."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
