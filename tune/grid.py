"""Factorial grids of runs, from YAML.

    name: mine
    experiment: fashion_lenet          # a preset, or a YAML file
    fixed: {rounds: 10}                # the same in every run
    grid:                              # or a list of grids, which are run one after the other
      algorithm: [fedavg, spatl]
      partition: [iid, {name: dirichlet, beta: 0.5}]
      clients, sample_ratio: [[10, 1.0], [30, 0.4]]
      seed: [0, 1, 2]

An axis names a field, or several that change together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from, read_mapping
from spatl_ray.faults import nearest
from spatl_ray.overrides import overridden
from spatl_ray.yaml_text import parse
from tune.fields import (
    check_key,
    check_size,
    overlaps,
    override,
    paths_of,
    plain,
    read_text,
    twice,
    values_by_path,
)
from tune.space import MOST_TOLD
from tune.study import as_trial

GRIDS = Path(__file__).parent / "grids"
KEYS = ("name", "experiment", "fixed", "grid")

Axes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Cell:
    """A run of a grid.

    Attributes:
        values: of its axes, as text.
        experiment: its config.
    """

    values: Mapping[str, str]
    experiment: Experiment


@dataclass(frozen=True)
class Grid:
    """All runs of a sweep.

    Attributes:
        name: of the sweep in the results, and of its runs.
        axes: names, in their order.
        cells: the runs; no two have the same id.
    """

    name: str
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]


def read_grid(source: str, overrides: Sequence[str] = ()) -> Grid:
    """The grid of a YAML file, or of a preset of `tune/grids`.

    Args:
        source: path, or the preset's name.
        overrides: `key=value`; one for a field of an axis takes the place of the axis' values.

    Raises:
        ConfigError: one line a fault, of all runs.
    """
    raw = _raw(source)
    given = [(paths_of(text.partition("=")[0]), text) for text in overrides]
    blocks = raw["grid"] if isinstance(raw["grid"], list) else [raw["grid"]]
    base = read_mapping(raw["experiment"])
    fixed = [override(path, value) for path, value in raw.get("fixed", {}).items()]
    cells: dict[str, Cell] = {}
    faults: dict[str, None] = {}
    for block in blocks:
        axes, rest = _narrowed(block, given)
        check_size(source, axes.values())
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            try:
                cell = _cell(raw["name"], base, [*fixed, *_texts(chosen), *rest], chosen)
                cells.setdefault(cell.experiment.run_id, cell)
            except ConfigError as error:
                faults |= dict.fromkeys(error.faults)
            if len(faults) >= MOST_TOLD:
                raise ConfigError(list(faults))
    if faults:
        raise ConfigError(list(faults))
    if not cells:
        raise ConfigError(f"{source} must leave runs to do, got none with {', '.join(overrides)}")
    names = dict.fromkeys(name for cell in cells.values() for name in cell.values)
    return Grid(raw["name"], tuple(names), tuple(cells.values()))


def _raw(source: str) -> Mapping[str, Any]:
    """What the file says, in its form."""
    path = Path(source)
    known = sorted(each.stem for each in GRIDS.glob("*.yaml"))
    if not path.is_file():
        if source not in known:
            close = nearest(source, known)
            hint = f"; did you mean {close!r}?" if close else ""
            raise ConfigError(
                f"a grid must be a YAML file or one of {', '.join(known)}, got {source!r}{hint}"
            )
        path = GRIDS / f"{source}.yaml"
    raw = parse(read_text(path), source)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source} must hold a mapping of {', '.join(KEYS)}, got {raw!r:.60}")
    faults = _form_faults(raw, source)
    if faults:
        raise ConfigError(faults)
    return raw


def _form_faults(raw: Mapping[Any, Any], source: str) -> list[str]:
    faults = []
    for key in raw:
        if key not in KEYS:
            close = nearest(str(key), KEYS)
            hint = f"; did you mean {close}?" if close else ""
            faults.append(f"{key} is no field of a grid{hint}")
    faults += [
        f"{key} must be given in {source}" for key in KEYS if key not in raw and key != "fixed"
    ]
    if not isinstance(raw.get("name", ""), str) or not isinstance(raw.get("experiment", ""), str):
        faults.append("name and experiment must be text")
    if not isinstance(raw.get("fixed", {}), Mapping):
        faults.append(f"fixed must be a mapping, got {raw['fixed']!r}")
    else:
        for key, value in raw.get("fixed", {}).items():
            faults += _told(check_key, key) or _told(plain, key, value)
    blocks = raw.get("grid", {})
    for block in blocks if isinstance(blocks, list) else [blocks]:
        faults += _axis_faults(block)
    return faults


def _axis_faults(block: Any) -> list[str]:
    if not isinstance(block, Mapping):
        return [f"grid must be a mapping of axes, or a list of such, got {block!r:.60}"]
    faults = [fault for key in block for fault in _told(check_key, key)]
    for key, values in block.items() if not faults else ():
        faults += _value_faults(key, values)
    if faults:
        return faults
    paths = [path for key in block for path in paths_of(key)]
    faults = [f"{path} must be set by one axis only" for path in twice(paths)]
    values_of: dict[str, Sequence[Any]] = {}
    for key, values in block.items():
        values_of |= values_by_path(paths_of(key), values)
    return faults + overlaps(values_of)


def _value_faults(key: str, values: Any) -> list[str]:
    """What is wrong with the values of an axis."""
    if not isinstance(values, list) or not values:
        return [f"{key} must be a list of at least one value, got {values!r}"]
    paths = paths_of(key)
    if len(paths) > 1:
        wrong = [each for each in values if not isinstance(each, list) or len(each) != len(paths)]
        if wrong:
            return [
                f"{key}: a value must be a list of {len(paths)}, got {each!r}" for each in wrong
            ]
    return _told(plain, key, values)


def _told(check: Callable[..., object], *values: Any) -> list[str]:
    """The faults that a check finds."""
    try:
        check(*values)
    except ConfigError as error:
        return list(error.faults)
    return []


def _narrowed(
    block: Mapping[str, Any], given: Sequence[tuple[tuple[str, ...], str]]
) -> tuple[dict[str, Sequence[Any]], list[str]]:
    """The axes with the overrides of their fields, and the other overrides."""
    axes: dict[str, Sequence[Any]] = dict(block)
    rest = []
    for (path, *_), text in given:
        axis = next((key for key in axes if path in paths_of(key)), None)
        if axis is None:
            rest.append(text)
            continue
        value = parse(text.partition("=")[2], f"the value of override {text!r}")
        wanted = value if isinstance(value, list) else [value]
        paths = paths_of(axis)
        if len(paths) == 1:
            axes[axis] = wanted
            continue
        place = paths.index(path)
        axes[axis] = [values for values in axes[axis] if values[place] in wanted]
    return axes, rest


def _texts(chosen: Mapping[str, Any]) -> list[str]:
    """The values of all axes as overrides."""
    texts = []
    for axis, value in chosen.items():
        paths = paths_of(axis)
        values = value if len(paths) > 1 else (value,)
        texts += [override(path, each) for path, each in zip(paths, values, strict=True)]
    return texts


def _cell(
    name: str, base: Mapping[str, Any], texts: Sequence[str], chosen: Mapping[str, Any]
) -> Cell:
    raw = overridden(base, texts)
    experiment = as_trial(experiment_from({**raw, "name": name}), raw)
    results = experiment.results.model_copy(
        update={"sweep_id": name, "folder": str(Path(experiment.results.folder).absolute())}
    )
    experiment = experiment.model_copy(update={"results": results})
    return Cell({axis: _shown(value) for axis, value in chosen.items()}, experiment)


def _shown(value: Any) -> str:
    """An axis' value in a table."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={each}" for key, each in value.items() if key != "name")
        return f"{value.get('name', '')}({rest})" if rest else str(value.get("name", ""))
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value) if isinstance(value, str) else json.dumps(value)


def described() -> dict[str, str]:
    """The grids that come along: name -> their file's first line."""
    found = {}
    for path in sorted(GRIDS.glob("*.yaml")):
        found[path.stem] = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return found
