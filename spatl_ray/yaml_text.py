"""YAML as experiments use it: plain data only, no key twice, and `1e-3` is a number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from spatl_ray.errors import ConfigError

MOST_ALIASED = 100_000
"""Values that aliases may stand for, written out: a few lines could stand for more than memory holds."""


class _Loader(yaml.SafeLoader):
    """Safe loading; YAML 1.1 alone reads `1e-3`, which has no point, as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse(text: str, source: str) -> Any:
    """The plain data that a YAML text holds.

    Args:
        text: the YAML text.
        source: where it is from, for the error.

    Raises:
        ConfigError: it is no YAML, its aliases stand for too much, or a mapping has a key twice; names the
            lines.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _refuse_bombs(node, source)
        twice = list(_twice(node, "", source)) if node else []
        if twice:
            raise ConfigError(twice)
        return loader.construct_document(node) if node else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source} must be YAML: {_place(error)}") from error
    finally:
        loader.dispose()


def _refuse_bombs(node: yaml.Node | None, source: str) -> None:
    """Refuse a document that is far longer once its aliases are written out."""
    sizes: dict[int, int] = {}
    whole = 0 if node is None else _size(node, sizes)
    if whole - len(sizes) > MOST_ALIASED:
        raise ConfigError(
            f"{source} must hold at most {MOST_ALIASED:,} values that come from aliases, got more"
        )


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Nodes below and with this one, as often as they are named; `sizes` has those that are known.

    Raises:
        RecursionError: it holds itself, or is nested deeply.
    """
    if id(node) not in sizes:
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        sizes[id(node)] = 1 + sum(_size(each, sizes) for each in below)
    return sizes[id(node)]


def _twice(node: yaml.Node, path: str, source: str) -> Iterator[str]:
    """One line for each key that stands twice in one mapping."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _twice(item, path, source)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[object] = set()
    for key, value in node.value:
        where = f"{path}.{key.value}" if path else str(key.value)
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                line = key.start_mark.line + 1
                yield f"{source}, line {line}: {where} is given twice; a key must stand once"
            seen.add(key.value)
        yield from _twice(value, where, source)


def _place(error: Exception) -> str:
    """Line, column and problem of a YAML error, in one line."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, RecursionError):
        return "a list or mapping must not hold itself or be nested so deeply"
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return str(problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
