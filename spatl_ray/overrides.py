"""Overrides of an experiment: `algorithm.keep=0.3`, `algorithm=fedavg`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.fields import Model, is_named, kinds, plain, section
from spatl_ray.yaml_text import parse

Tree = dict[str, Any]
Override = tuple[tuple[str, ...], Any]

NAMED = tuple(name for name, field in Experiment.model_fields.items() if is_named(field))
"""The sections that are chosen by name: `algorithm=fedavg` stands for `algorithm.name=fedavg`."""

ARGUMENTS = frozenset({"options", "predictor", "partition.min_size"})
"""Keys that are made for one name, so that another name never takes them over.

A key of one section only is written section.key.
"""


def with_names(raw: Mapping[Any, Any]) -> Tree:
    """A copy in which each chosen section is a mapping that says its name.

    `algorithm: fedavg` becomes {"name": "fedavg"}; a section of several kinds that has no name gets
    the default's, if there is one. Nothing else is touched.
    """
    copy = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for key in NAMED:
        value = copy.get(key)
        field = Experiment.model_fields[key]
        if isinstance(value, str):
            copy[key] = {"name": value}
        elif isinstance(value, dict) and kinds(field) and field.default is not None:
            value.setdefault("name", field.default.name)
    return copy


def overridden(raw: Mapping[Any, Any], texts: Sequence[str]) -> Tree:
    """The experiment that `raw` describes, with the overrides set.

    Where an override changes a section's name, what the file said for the old one goes, as far as
    the new one has no such field; what other overrides say stays. A later override wins.

    Args:
        raw: an experiment as plain data.
        texts: overrides `a.b.c=value`, the value in YAML.

    Raises:
        ConfigError: an override is malformed; names all that are.
    """
    tree = with_names(raw)
    overrides = _parsed(texts)
    for path, value in overrides:
        if len(path) == 2 and path[0] in NAMED and path[1] == "name":
            _rename(tree, path[0], value)
    for path, value in overrides:
        _set(tree, path, value)
    return with_names(tree)


def _parsed(texts: Sequence[str]) -> list[Override]:
    faults: list[str] = []
    overrides: list[Override] = []
    for text in texts:
        try:
            overrides.append(_one(text))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return overrides


def _one(text: str) -> Override:
    key, equals, value_text = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"an override must have the form key=value or a.b=value, got {text!r}")
    value = parse(value_text, f"the value of override {text!r}")
    if len(path) == 1 and path[0] in NAMED and isinstance(value, str):
        return (path[0], "name"), value
    return path, value


def _rename(tree: Tree, key: str, name: Any) -> None:
    """Give a section another name, and drop what belonged to the old one only."""
    old = tree.get(key)
    if not isinstance(old, dict) or old.get("name") == name:
        return
    kind = section(Experiment.model_fields[key], {"name": name})
    if kind is not None:
        fields = [name for name in kind.model_fields if not ARGUMENTS & {name, f"{key}.{name}"}]
        tree[key] = {k: v for k, v in old.items() if k in fields}


def _set(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    """Set the value at a path; what stands in the way and is no mapping makes room."""
    *above, last = _steps(tree, path)
    for step in above:
        below = tree.get(step)
        tree[step] = dict(below) if isinstance(below, Mapping) else {}
        tree = tree[step]
    tree[last] = value


def _steps(tree: Tree, path: tuple[str, ...]) -> tuple[str, ...]:
    """The path's keys; a mapping by layer name takes the rest, dots and all, as one key."""
    model: Model | None = Experiment
    value: Any = tree
    for index, step in enumerate(path):
        field = model.model_fields.get(step) if model else None
        if field is None:
            return path
        value = value.get(step, field.default) if isinstance(value, Mapping) else field.default
        model = section(field, value)
        annotation = plain(field.annotation)
        if get_origin(annotation) is dict and get_args(annotation)[1] is not Any:
            rest = ".".join(path[index + 1 :])
            return (*path[: index + 1], rest) if rest else path
    return path
