"""What all config models share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from spatl_ray.plugins import is_dotted

MOST = 2**31
"""Counts are below this: what is made of them fits into 64 bits."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _countable(value: int) -> int:
    if value >= MOST:
        shown = value if value < 10**20 else "over 1e20"
        raise ValueError(f"must be less than {MOST}, got {shown}")
    return value


Count = Annotated[int, Field(ge=1), AfterValidator(_countable)]
ValueType = Literal["float32", "float16", "bfloat16", "float64"]


class Strict(BaseModel):
    """Base of all config models: frozen, no unknown keys, no silent conversions of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _is_json(value: Any) -> bool:
    """Whether JSON holds the value as it is; so two different ones never have the same text."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if not _is_json(value):
            raise ValueError(
                "must hold texts, finite numbers, true, false, null, lists and mappings of them, "
                f"got {value!r} for {name}"
            )
    return options


Options = Annotated[dict[str, Any], AfterValidator(_check_options)]


class Own(Strict):
    """An own kind of a section, by dotted name.

    Attributes:
        name: `package.module:Name`.
        options: handed to it.
    """

    name: str
    options: Options = {}


def tag(value: Any) -> str:
    """Which kind of a section `value` is: its `name`, or "own" for a dotted one."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "own" if is_dotted(name) else str(name)


def one_of(*known: str) -> AfterValidator:
    """Lets a text be one of `known`, or `package.module:Name`."""

    def check(value: str) -> str:
        if value not in known and not is_dotted(value):
            names = ", ".join(known)
            raise ValueError(f"must be one of {names}, or package.module:Name, got {value!r}")
        return value

    return AfterValidator(check)
