"""Search spaces: typed ranges over an experiment's fields, from YAML.

    training.lr: {loguniform: [1e-3, 1e-1]}
    training.epochs: {int: [1, 4]}
    wire.uplink: {choice: [null, bfloat16]}
    algorithm.control.variate, algorithm.control.strength: {choice: [[derived, 1.0], [sent, 0.5]]}
    training.momentum: 0.9

A key names a field, or several that are chosen together. A plain value is the same in every trial.
For a grid, a continuous range says in how many `points` it is cut.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatl_ray import seeding
from spatl_ray.config import Experiment
from spatl_ray.errors import ConfigError
from spatl_ray.experiments import experiment_from
from spatl_ray.faults import nearest
from spatl_ray.overrides import overridden
from spatl_ray.yaml_text import parse
from tune.fields import (
    MOST_POINTS,
    check_key,
    check_size,
    is_plain,
    overlaps,
    override,
    paths_of,
    plain,
    twice,
    values_by_path,
)

CONTINUOUS, INTEGER, CHOICE = ("uniform", "loguniform"), ("int", "logint"), "choice"
KINDS = (*CONTINUOUS, *INTEGER, CHOICE)
LOGARITHMIC = ("loguniform", "logint")

OUTSIDE = ("name", "rounds", "engine", "checkpoints", "results")
"""Fields that no space sets: schedulers decide on rounds, and the others decide no number."""

MEASURE = ("seed", "clients", "data", "partition", "evaluation")
"""Fields that no range varies: they decide what trials are measured on."""

MOST_CHECKED = 256
"""Corners of a space that are tried on the experiment before anything starts."""
MOST_TOLD = 8
"""Faults that are shown at once."""

SPACES = Path(__file__).parent / "spaces"
"""The default spaces."""

Point = Mapping[str, Any]
"""A value by dimension; of a choice whose values are no plain ones, their JSON."""


@dataclass(frozen=True)
class Dimension:
    """One range.

    Attributes:
        paths: the fields that it sets.
        kind: uniform, loguniform, int, logint or choice.
        values: lowest and highest value, both included; or the choices.
        points: in how many values a grid cuts a continuous range, or None.
    """

    paths: tuple[str, ...]
    kind: str
    values: tuple[Any, ...]
    points: int | None = None

    @property
    def key(self) -> str:
        """Its name in the space."""
        return ", ".join(self.paths)

    def labels(self) -> tuple[Any, ...]:
        """The choices as they stand in a point."""
        return tuple(map(_label, self.values))

    def fields(self, label: Any) -> dict[str, Any]:
        """What a value in a point sets, by field."""
        if self.kind != CHOICE:
            return {self.paths[0]: label}
        value = self.values[self.labels().index(label)]
        return dict(zip(self.paths, value if len(self.paths) > 1 else (value,), strict=True))

    def holds(self, label: Any) -> bool:
        """Whether a value in a point is one of this range."""
        if self.kind == CHOICE:
            return label in self.labels()
        low, high = self.values
        is_number = _is_integer if self.kind in INTEGER else _is_finite
        return is_number(label) and low <= label <= high

    def extremes(self) -> tuple[Any, ...]:
        """What is tried before anything starts."""
        return self.labels() if self.kind == CHOICE else self.values

    def grid(self) -> tuple[Any, ...]:
        """The values of a grid.

        Raises:
            ConfigError: the range does not say how many.
        """
        if self.kind == CHOICE:
            return self.labels()
        low, high = self.values
        if self.kind in INTEGER and self.points is None and high - low < MOST_POINTS:
            return tuple(range(low, high + 1))
        if self.points is None:
            raise ConfigError(
                f"{self.key} must say into how many values a grid cuts it, such as "
                f"{{{self.kind}: [{low}, {high}], points: 3}}"
            )
        cut = np.geomspace if self.kind in LOGARITHMIC else np.linspace
        values = [float(value) for value in cut(low, high, self.points)]
        return tuple(dict.fromkeys(map(round, values) if self.kind in INTEGER else values))

    def sample(self, generator: np.random.Generator) -> Any:
        """A value, drawn."""
        if self.kind == CHOICE:
            return self.labels()[int(generator.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "int":
            return int(generator.integers(low, high + 1))
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
        inside = min(max(drawn, low), high)
        return round(inside) if self.kind == "logint" else inside


@dataclass(frozen=True)
class Space:
    """Ranges, and what is the same in every trial.

    Attributes:
        dimensions: the ranges.
        fixed: values by field.
    """

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any]

    def holds(self, point: Point) -> bool:
        """Whether it is a point of this space."""
        ranges = {dimension.key: dimension for dimension in self.dimensions}
        return point.keys() == ranges.keys() and all(
            ranges[key].holds(value) for key, value in point.items()
        )

    def fixed_texts(self) -> list[str]:
        """What is the same in every trial, as overrides of the experiment."""
        return [override(path, value) for path, value in self.fixed.items()]

    def texts(self, point: Point) -> list[str]:
        """A point as overrides of the experiment."""
        given: dict[str, Any] = {}
        for dimension in self.dimensions:
            given |= dimension.fields(point[dimension.key])
        return [*self.fixed_texts(), *(override(path, value) for path, value in given.items())]

    def grid(self) -> list[Point]:
        """All points of a grid, the last dimension fastest.

        Raises:
            ConfigError: one line for each range that does not say how many values it has.
        """
        columns: list[tuple[Any, ...]] = []
        faults: list[str] = []
        for dimension in self.dimensions:
            try:
                columns.append(dimension.grid())
            except ConfigError as error:
                faults.extend(error.faults)
        if faults:
            raise ConfigError(faults)
        check_size("the grid", columns)
        keys = [dimension.key for dimension in self.dimensions]
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*columns)]

    def sample(self, generator: np.random.Generator) -> Point:
        """A point, drawn."""
        return {dimension.key: dimension.sample(generator) for dimension in self.dimensions}


def default_space(experiment: Experiment) -> Path:
    """The space that is searched if none is given.

    Raises:
        ConfigError: an own algorithm has none.
    """
    name = experiment.algorithm.name
    if getattr(experiment.algorithm, "agent", None) is not None:
        name = f"{name}_agent"
    path = SPACES / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"--space must be given for algorithm {name!r}: no default is known")
    return path


def parse_space(text: str, source: str) -> Space:
    """The space of a YAML text.

    Raises:
        ConfigError: one line a fault.
    """
    raw = parse(text, source)
    if not isinstance(raw, Mapping) or not raw:
        raise ConfigError(
            f"{source} must hold at least one range, such as training.lr: "
            f"{{loguniform: [1e-3, 1e-1]}}, got {raw!r}"
        )
    dimensions: list[Dimension] = []
    fixed: dict[str, Any] = {}
    faults: list[str] = []
    for key, spec in raw.items():
        try:
            check_key(key)
            if isinstance(spec, Mapping):
                dimensions.append(_dimension(key, spec))
            else:
                fixed[key] = plain(key, spec)
        except ConfigError as error:
            faults.extend(error.faults)
    faults += _path_faults(dimensions, fixed)
    if not dimensions and not faults:
        faults.append(f"{source} must hold at least one range, got fixed values only")
    if faults:
        raise ConfigError(faults)
    return Space(tuple(dimensions), fixed)


def _path_faults(dimensions: Sequence[Dimension], fixed: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields that a space sets."""
    ranged = [path for each in dimensions for path in each.paths]
    values: dict[str, Sequence[Any]] = {path: [value] for path, value in fixed.items()}
    for each in dimensions:
        values |= values_by_path(each.paths, each.values)
    faults = [f"{path} must be set by one range only" for path in twice([*ranged, *fixed])]
    faults += overlaps(values)
    faults += [
        f"{path} must not be searched: it decides no number, or the scheduler decides on it"
        for path in (*ranged, *fixed)
        if path.partition(".")[0] in OUTSIDE
    ]
    return faults + [
        f"{path} must not be searched: trials that are measured on other data or in another way cannot be "
        "compared"
        for path in ranged
        if path.partition(".")[0] in MEASURE
    ]


def check_space(
    space: Space,
    raw: Mapping[str, Any],
    overrides: Sequence[str],
    check: Callable[[Experiment], object] = lambda experiment: None,
) -> None:
    """Try the corners of a space on the experiment.

    Args:
        space: the space.
        raw: the experiment as its file says it.
        overrides: of the experiment.
        check: what else experiments there must pass.

    Raises:
        ConfigError: what an experiment there says; a field that it has not comes with the nearest one.
    """
    faults: dict[str, str] = {}
    for point in _corners(space):
        try:
            check(experiment_from(overridden(raw, [*overrides, *space.texts(point)])))
        except ConfigError as error:
            where = ", ".join(f"{key}={value}" for key, value in point.items())
            for fault in error.faults:
                faults.setdefault(fault, where)
        if len(faults) >= MOST_TOLD:
            break
    if faults:
        raise ConfigError(
            [f"{fault} (of the space, at {where})" for fault, where in faults.items()]
        )


def _corners(space: Space) -> Iterable[Point]:
    """Combinations of extremes: all, or as many drawn ones as are checked."""
    keys = [dimension.key for dimension in space.dimensions]
    extremes = [dimension.extremes() for dimension in space.dimensions]
    if math.prod(map(len, extremes)) <= MOST_CHECKED:
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*extremes)]
    generator = seeding.generator(0, "corners of a space")
    # Every extreme at least once, beside drawn others.
    drawn = [
        {
            key: each[int(generator.integers(len(each)))]
            for key, each in zip(keys, extremes, strict=True)
        }
        for _ in range(MOST_CHECKED)
    ]
    singles = [(key, value) for key, each in zip(keys, extremes, strict=True) for value in each]
    return [{**point, key: value} for point, (key, value) in zip(drawn, itertools.cycle(singles))]


def _label(value: Any) -> Any:
    return value if is_plain(value) else json.dumps(value)


def _dimension(key: str, spec: Mapping[Any, Any]) -> Dimension:
    kind = _kind(key, spec)
    points = spec.get("points")
    if points is not None and (not isinstance(points, int) or points < 2 or kind == CHOICE):
        raise ConfigError(
            f"{key}: points must be an integer of at least 2, of a range, got {points!r}"
        )
    paths = paths_of(key)
    if kind == CHOICE:
        return Dimension(paths, kind, _choices(key, paths, spec[kind]))
    if len(paths) > 1:
        raise ConfigError(
            f"{key} names {len(paths)} fields, which only a choice can set, got {kind}"
        )
    return Dimension(paths, kind, _limits(key, kind, spec[kind]), points)


def _kind(key: str, spec: Mapping[Any, Any]) -> str:
    """The one kind of range that a mapping names."""
    names = [str(name) for name in spec if name != "points"]
    if len(names) == 1 and names[0] in KINDS:
        return names[0]
    close = nearest(names[0], KINDS) if len(names) == 1 else None
    hint = f"; did you mean {close!r}?" if close else ""
    raise ConfigError(
        f"{key} must be one of {', '.join(KINDS)}, got {', '.join(names) or 'none'}{hint}"
    )


def _choices(key: str, paths: Sequence[str], values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key}: choice must be a list of at least one value, got {values!r}")
    if len(paths) > 1:
        for value in values:
            if not isinstance(value, list) or len(value) != len(paths):
                raise ConfigError(
                    f"{key}: a choice must be a list of {len(paths)} values, got {value!r}"
                )
    plain(key, values)
    # As Python compares, which takes 1 for true: so do those who look a value up.
    if len({_label(value) for value in values}) < len(values):
        raise ConfigError(f"{key}: choices must differ, got {values!r}")
    return tuple(values)


def _limits(key: str, kind: str, values: Any) -> tuple[Any, ...]:
    is_number: Callable[[Any], bool] = _is_integer if kind in INTEGER else _is_finite
    rule = "integers" if kind in INTEGER else "finite numbers"
    if not isinstance(values, list) or len(values) != 2 or not all(map(is_number, values)):
        raise ConfigError(f"{key}: {kind} must be two {rule} [low, high], got {values!r}")
    low, high = values
    if not low < high:
        raise ConfigError(f"{key}: {kind} must have low < high, got {values!r}")
    if kind in LOGARITHMIC and low <= 0:
        raise ConfigError(f"{key}: {kind} must have low > 0, got {values!r}")
    return (low, high) if kind in INTEGER else (float(low), float(high))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
