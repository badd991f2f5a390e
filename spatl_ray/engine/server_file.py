"""The server's arrays as a file that holds no code: safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from spatl_ray.errors import StateError
from spatl_ray.parameters import Arrays, Space
from spatl_ray.places import write_whole


def save_server(path: Path, arrays: Arrays, spaces: Mapping[str, Space]) -> None:
    """Write the server's arrays tensor by tensor, named `array/tensor`, e.g. `model/encoder.0.weight`.

    What has no space is written as it is. The file appears whole or not at all.

    Args:
        path: of the file; its folder is made.
        arrays: the server's.
        spaces: of the arrays that are model vectors, by array name.

    Raises:
        StateError: it cannot be written; nothing of it stays.
    """
    tensors = {}
    for name, array in arrays.items():
        if name in spaces:
            views = spaces[name].views(array)
            tensors.update({f"{name}/{t}": np.ascontiguousarray(v) for t, v in views.items()})
        else:
            tensors[name] = np.ascontiguousarray(array)
    try:
        write_whole(path, save(tensors))
    except OSError as error:
        raise StateError(f"cannot write the model to {path}: {error.strerror or error}") from error


def load_server(path: Path, like: Arrays, spaces: Mapping[str, Space]) -> Arrays:
    """The arrays that `save_server` wrote.

    Args:
        path: of the file.
        like: the server's arrays before round 0: their names, shapes and types.
        spaces: of the arrays that are model vectors, by array name.

    Raises:
        StateError: the file is missing, damaged, or holds other arrays.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path} must be the model of a finished run, got {error}") from error
    arrays = {}
    for name, first in like.items():
        array = first.copy()
        views = spaces[name].views(array) if name in spaces else {"": array}
        for tensor, view in views.items():
            key = f"{name}/{tensor}" if tensor else name
            found = tensors.get(key)
            if found is None or (found.dtype, found.shape) != (view.dtype, view.shape):
                got = "none" if found is None else f"one of {found.dtype} and shape {found.shape}"
                rule = f"hold {key!r} of {view.dtype} and shape {view.shape}"
                raise StateError(f"{path} must {rule}, got {got}: it is of another model")
            view[...] = found
        arrays[name] = array
    return arrays
