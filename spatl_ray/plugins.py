"""Own algorithms, models and data sets by dotted name: `package.module:Name`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from spatl_ray.errors import ConfigError

DOTTED = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")


def is_dotted(name: object) -> bool:
    """Whether `name` has the form `package.module:Name`."""
    return isinstance(name, str) and DOTTED.match(name) is not None


def load(name: str, field: str) -> Callable[..., Any]:
    """The class or function that `package.module:Name` names.

    Args:
        name: the dotted name.
        field: the config field it came from, for the error.

    Raises:
        ConfigError: the module or the name in it does not exist, or cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{field} must name something that can be imported as package.module:Name, "
            f"got {name!r} ({error})"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{field} must name a class or a function, got {name!r}: a {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]
