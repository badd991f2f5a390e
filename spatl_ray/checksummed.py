"""Files of arrays and JSON values that hold no code, and show it if they are damaged.

    file = magic (12 bytes), SHA-256 of the rest (32 bytes), safetensors

The safetensors' metadata holds the values, as JSON in `facts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spatl_ray.errors import StateError
from spatl_ray.parameters import Array, Arrays

MAGIC_SIZE, DIGEST_SIZE = 12, 32
_LENGTH = 8


def packed(magic: bytes, arrays: Arrays, facts: Mapping[str, Any]) -> bytes:
    """A file's contents.

    Args:
        magic: of the kind of file and its version, 12 bytes.
        arrays: by name; of any shape.
        facts: JSON values.
    """
    # Not `ascontiguousarray`: it makes vectors of scalars.
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = save(tensors, {"facts": json.dumps(dict(facts))})
    return magic + hashlib.sha256(content).digest() + content


def unpacked(magic: bytes, data: bytes, name: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and values of a file's contents.

    Args:
        magic: that the file must have.
        data: the contents.
        name: of the file, for errors.

    Raises:
        StateError: it is another file, or damaged.
    """
    start = MAGIC_SIZE + DIGEST_SIZE
    content = data[start:]
    if data[:MAGIC_SIZE] != magic:
        raise StateError(f"{name} must be a checkpoint of this version, got another file")
    if hashlib.sha256(content).digest() != data[MAGIC_SIZE:start]:
        raise StateError(f"{name} must match its checksum: it is damaged")
    try:
        length = int.from_bytes(content[:_LENGTH], "little")
        header = json.loads(content[_LENGTH : _LENGTH + length])
        facts = json.loads(header["__metadata__"]["facts"])
        return load(content), dict(facts)
    except (SafetensorError, ValueError, TypeError, LookupError) as error:
        raise StateError(f"{name} must hold arrays and facts, got {error!r}") from error
