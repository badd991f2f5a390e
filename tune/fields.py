"""Keys and values of spaces and grids: which fields they set, and what they may be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spatl_ray.errors import ConfigError
from spatl_ray.overrides import NAMED

MOST_POINTS = 100_000
"""Points of a grid."""


def override(path: str, value: Any) -> str:
    """`path=value` as the experiment's overrides are written: JSON is YAML."""
    return f"{path}={json.dumps(value)}"


def paths_of(key: str) -> tuple[str, ...]:
    """The fields that a key names."""
    return tuple(path.strip() for path in key.split(","))


def read_text(source: Path) -> str:
    """The text of a YAML file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} must be a text file that can be read: {error}") from error


def check_key(key: Any) -> None:
    """Refuse a key that names no fields.

    Raises:
        ConfigError: it is no text, such as the YAML keys 5 and on, or has an empty name.
    """
    if not isinstance(key, str) or "=" in key or not all(paths_of(key)):
        raise ConfigError(
            f"a key must be the name of a field, or of several with commas between, got {key!r}"
        )


def plain(key: str, value: Any) -> Any:
    """A value, if it is one that an experiment may have.

    Raises:
        ConfigError: it, or something in it, is a date, bytes, a set, or a key that is no text.
    """
    if isinstance(value, Mapping):
        for name, below in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{key}: the keys of a mapping must be text, got {name!r}")
            plain(f"{key}.{name}", below)
    elif isinstance(value, list):
        for below in value:
            plain(key, below)
    elif not is_plain(value):
        raise ConfigError(
            f"{key} must be made of numbers, texts, true, false, null, lists and mappings, got "
            f"{type(value).__name__} {value}; write it in quotes if it is text"
        )
    return value


def is_plain(value: Any) -> bool:
    """Whether it is a number, a text, true, false or null."""
    return value is None or isinstance(value, bool | int | float | str)


def twice(paths: Sequence[str]) -> list[str]:
    """Those that come more than once."""
    return [path for path in dict.fromkeys(paths) if paths.count(path) > 1]


def values_by_path(paths: Sequence[str], values: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """What each field of a range can be."""
    if len(paths) == 1:
        return {paths[0]: values}
    return {path: [value[place] for value in values] for place, path in enumerate(paths)}


def overlaps(values: Mapping[str, Sequence[Any]]) -> list[str]:
    """Fields that are set as a whole and in parts, a line each.

    A section that is only given its name, as in `algorithm: {choice: [fedavg, fedprox]}`, is not.

    Args:
        values: what each field can be, by its path.
    """
    return [
        f"{whole} and {part} must not be set both: one would undo the other"
        for whole in values
        for part in values
        if part.startswith(f"{whole}.")
        and not (whole in NAMED and all(isinstance(value, str) for value in values[whole]))
    ]


def check_size(grid: str, columns: Iterable[Sequence[Any]]) -> None:
    """Refuse a grid that nobody can mean.

    Raises:
        ConfigError: it has more points than `MOST_POINTS`.
    """
    count = math.prod(map(len, columns))
    if count > MOST_POINTS:
        raise ConfigError(f"{grid} must have at most {MOST_POINTS:,} points, got {count:,}")
