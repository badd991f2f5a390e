"""Experiments from YAML files, presets and overrides; every fault at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spatl_ray import faults
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.fields import locate
from spatl_ray.overrides import overridden, with_names
from spatl_ray.yaml_text import parse

SUFFIXES = (".yaml", ".yml")


def experiment_from(mapping: Mapping[str, Any]) -> Experiment:
    """The experiment that plain data describes.

    Args:
        mapping: the fields of `Experiment`; a section's name may stand for the section.

    Raises:
        ConfigError: one line a fault, each naming field, value and rule.
    """
    raw = with_names(mapping)
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_all_faults(raw)) from error


def load_experiment(source: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a YAML file or a preset, with overrides.

    Args:
        source: path of a YAML file, or the name of a preset.
        overrides: `key=value` or `section.key=value`, the value in YAML.

    Raises:
        ConfigError: there is no such file or preset, it is no YAML mapping, an override is
            malformed, or the experiment cannot run.
    """
    return experiment_from(overridden(read_mapping(source), overrides))


def read_mapping(source: str | Path) -> Mapping[str, Any]:
    """What a YAML file or a preset says, unchecked.

    Raises:
        ConfigError: there is no such file or preset, or it is no YAML mapping.
    """
    raw = parse(_text(source), str(source))
    if not isinstance(raw, Mapping):
        kind = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ConfigError(f"{source} must hold a mapping of fields at its top level, got {kind}")
    return raw


def presets() -> dict[str, str]:
    """The presets that install with the package: name -> description, its file's first line."""
    found = {
        entry.name.removesuffix(".yaml"): _description(entry.read_text(encoding="utf-8"))
        for entry in _folder().iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def _folder() -> Traversable:
    return files("spatl_ray").joinpath("presets")


def _description(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ").rstrip()


def _text(source: str | Path) -> str:
    """The YAML text of a file, else of the preset of that name."""
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source} must be a text file that can be read: {error}") from error
    known = presets()
    if str(source) in known:
        return _folder().joinpath(f"{source}.yaml").read_text(encoding="utf-8")
    close = faults.nearest(path.name.removesuffix(path.suffix), known)
    hint = f"; did you mean {close!r}?" if close else ""
    raise ConfigError(
        f"an experiment must be a YAML file or one of the presets {', '.join(known)}, "
        f"got {str(source)!r}{_why(path)}{hint}"
    )


def _why(path: Path) -> str:
    """What is wrong with a path that was meant as one."""
    if path.is_dir():
        return ": a folder"
    return ": no such file" if path.suffix in SUFFIXES or len(path.parts) > 1 else ""


def _all_faults(raw: Mapping[Any, Any]) -> list[str]:
    """Every fault, also those that pydantic does not look for because of others.

    A model's rules over several fields are checked once its fields are sound. So what is faulty is
    put back to its default and the rest is checked again; a rule that names something put back may
    have judged the default, and is left out.
    """
    found: list[str] = []
    put_back: set[str] = set()
    while True:
        try:
            Experiment.model_validate(raw)
            return found
        except ValidationError as error:
            found += [text for text in faults.texts(error, raw) if not put_back & _words(text)]
            places = [locate(detail["loc"], raw).path for detail in error.errors()]
        rest = _without(raw, places)
        if rest == raw:
            return found
        put_back |= {path[-1] for path in places if path}
        raw = rest


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _without(raw: Mapping[Any, Any], places: Sequence[tuple[str, ...]]) -> dict[Any, Any]:
    """The experiment without what stands at the given places."""
    kept = {}
    for key, value in raw.items():
        below = [path[1:] for path in places if path and path[0] == str(key)]
        if () not in below:
            nested = isinstance(value, Mapping) and below
            kept[key] = _without(value, below) if nested else value
    return kept
