"""What all config models share."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from spatl_ray.errors import ConfigError
from spatl_ray.plugins import is_dotted

MOST = 2**31
"""Counts are below this: what is made of them fits into 64 bits."""

DEEPEST = 100
"""Lists and mappings in each other that options can have; JSON's writers end soon after 250."""

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
FewBits = Literal["int8", "int4"]
SentType = Literal["float32", "float16", "bfloat16", "float64", "int8", "int4"]
"""Both; as one literal, so that an error names them all."""


LATER = "later"
"""Marks a field that is younger than runs that people have: `Annotated[..., LATER]`."""

EVERYTHING = {"everything": True}
"""As `context` of a dump: with such fields, too, where they have their default."""


class Strict(BaseModel):
    """Base of all config models: frozen, no unknown keys, no silent conversions of text.

    A dump leaves out fields marked `LATER` that have their default: it is what it was before they came, and
    so are run ids, which are hashes of it, and configs in results.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    @model_serializer(mode="wrap")
    def _as_before(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if info.context == EVERYTHING:
            return dumped
        for name, field in type(self).model_fields.items():
            if LATER in field.metadata and getattr(self, name) == field.default:
                dumped.pop(name, None)
        return dumped


def _is_json(value: Any, depth: int = 1) -> bool:
    """Whether JSON holds the value as it is; so two different ones never have the same text."""
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json(v, depth + 1) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(each, depth + 1) for each in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        try:
            is_plain = _is_json(value)
        except RecursionError as error:
            raise ValueError(
                f"must not hold itself or be nested over {DEEPEST} deep, got {name}"
            ) from error
        if not is_plain:
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


def contents(field: str, path: str) -> str:
    """The SHA-256 of a file that the config names, in hex digits.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field} must be a readable file, got {path!r} ({error})") from error


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
