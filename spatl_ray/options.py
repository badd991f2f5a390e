"""Checks that the options of data sets and models share."""

from __future__ import annotations

from spatl_ray.errors import SpatlError


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_counts(section: str, error: type[SpatlError], least: int = 1, **values: object) -> None:
    """Refuse options that are no integers of at least `least`.

    Args:
        section: the config field that holds the options.
        error: what to raise.
        least: the smallest allowed value.
        values: option -> its value.

    Raises:
        SpatlError: an `error` that names the first of them.
    """
    for name, value in values.items():
        if not is_count(value, least):
            raise error(f"{section}.{name} must be an integer of at least {least}, got {value!r}")
