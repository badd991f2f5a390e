"""The server's arrays as a file that holds no code: safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from spatl_ray.parameters import Arrays, Space


def save_server(path: Path, arrays: Arrays, spaces: Mapping[str, Space]) -> None:
    """Write the server's arrays tensor by tensor, named `array/tensor`, e.g. `model/encoder.0.weight`.

    What has no space is written as it is. The file appears whole or not at all.

    Args:
        path: of the file; its folder is made.
        arrays: the server's.
        spaces: of the arrays that are model vectors, by array name.
    """
    tensors = {}
    for name, array in arrays.items():
        if name in spaces:
            views = spaces[name].views(array)
            tensors.update({f"{name}/{t}": np.ascontiguousarray(v) for t, v in views.items()})
        else:
            tensors[name] = np.ascontiguousarray(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, whole)
    whole.replace(path)
