"""Checks of `data.options`: each refusal names field, rule and value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from spatl_ray.errors import ConfigError
from spatl_ray.options import is_count


def refuse(field: str, rule: str, value: object) -> ConfigError:
    """The error for an option that breaks a rule."""
    return ConfigError(f"data.options.{field} must {rule}, got {value!r}")


def check_choice(field: str, value: Any, known: Iterable[str]) -> None:
    """`value` is one of the known words."""
    words = list(known)
    if value not in words:
        raise refuse(field, f"be one of {', '.join(words)}", value)


def check_bools(**values: Any) -> None:
    """Each value is true or false."""
    for field, value in values.items():
        if not isinstance(value, bool):
            raise refuse(field, "be true or false", value)


def check_count(field: str, value: Any, most: int) -> None:
    """`value` is an integer from 0 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise refuse(field, f"be an integer from 0 to {most}", value)


def check_fraction(field: str, value: Any) -> None:
    """`value` lies strictly between 0 and 1."""
    if not _is_real(value) or not 0 < value < 1:
        raise refuse(field, "be in (0, 1)", value)


def check_non_negative(field: str, value: Any) -> None:
    """`value` is a finite number of at least 0."""
    if not _is_real(value) or not 0 <= value < math.inf:
        raise refuse(field, "be finite and at least 0", value)


def check_sizes(field: str, value: Any, length: int | None = None) -> tuple[int, ...]:
    """`value` is a list of positive integers, `length` of them if that is given."""
    if (
        not isinstance(value, list | tuple)
        or not value
        or len(value) != (length or len(value))
        or not all(is_count(each) for each in value)
    ):
        raise refuse(field, f"be a list of {length or 'some'} positive integers", value)
    return tuple(value)


def check_root(root: str | None, name: str, what: str) -> str:
    """`data.root` is given, because the data set `name` has no usual place."""
    if root is None:
        raise ConfigError(f"data.root must be {what} for the data set {name}, got None")
    return root


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
