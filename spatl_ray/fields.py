"""What the config models say about their own fields: kinds, bounds, paths.

A section with several kinds (`partition`, `algorithm`) is a tagged union; its `name` picks the
kind. The texts of faults and the meaning of overrides are derived from here, not written twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator
from pydantic.fields import FieldInfo

from spatl_ray.config import Experiment
from spatl_ray.plugins import is_dotted

Model = type[BaseModel]

NUMBERS = "constant"
"""The kind that a number stands for."""

OWN = "own"
"""Stands for the kind that a dotted name picks."""


def plain(annotation: Any) -> Any:
    """An annotation without its metadata and without None."""
    if get_origin(annotation) is Annotated:
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [each for each in get_args(annotation) if each is not NoneType]
        return plain(rest[0]) if len(rest) == 1 else annotation
    return annotation


def bounds(field: FieldInfo) -> dict[str, float]:
    """The field's bounds by their names `gt`, `ge`, `lt`, `le`; of a mapping: of its values."""
    constraints = [*field.metadata, *_constraints(field.annotation)]
    return {
        name: getattr(constraint, name)
        for constraint in constraints
        for name in ("gt", "ge", "lt", "le")
        if getattr(constraint, name, None) is not None
    }


def _constraints(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        if isinstance(argument, FieldInfo):
            yield from argument.metadata
        yield from _constraints(argument)


def kinds(field: FieldInfo) -> dict[str, Model]:
    """The kinds of a section by name; empty for any other field."""
    members: list[Model] = [plain(member) for member in _members(field)]
    return {_tag(member.model_fields["name"]): member for member in members}


def _members(field: FieldInfo) -> tuple[Any, ...]:
    """The members of a tagged union, or of one that may be None; none of any other field."""
    if any(isinstance(each, Discriminator) for each in field.metadata):
        return get_args(field.annotation)
    for member in get_args(field.annotation):
        if any(isinstance(each, Discriminator) for each in getattr(member, "__metadata__", ())):
            return get_args(get_args(member)[0])
    return ()


def _is_union(field: FieldInfo) -> bool:
    return bool(_members(field))


def _tag(name: FieldInfo) -> str:
    return OWN if name.is_required() else str(name.default)


def is_named(field: FieldInfo) -> bool:
    """Whether the field is a section that its `name` chooses or loads."""
    if _is_union(field):
        return True
    found = section(field, None)
    return found is not None and "name" in found.model_fields


def section(field: FieldInfo, value: Any) -> Model | None:
    """The model class of a section that holds `value`; None if no section, or of no known kind."""
    members = kinds(field)
    if members:
        name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
        return members.get(OWN if is_dotted(name) else str(name))
    found = plain(field.annotation)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def child(value: Any, name: str, field: FieldInfo) -> Any:
    """What a field holds inside `value`, a mapping or a model; its default where not given."""
    if isinstance(value, Mapping):
        return value.get(name, field.default)
    return getattr(value, name, field.default)


@dataclass(frozen=True)
class Place:
    """Where a fault lies.

    Attributes:
        path: as a user writes it, without the tags of unions.
        owner: the model that the path's last step was looked up in; None inside a plain mapping.
        field: the field there; inside a mapping or a list the field that holds it; None if unknown.
        root: the model that the path begins in.
    """

    path: tuple[str, ...]
    owner: Model | None
    field: FieldInfo | None
    root: Model = Experiment

    @property
    def dotted(self) -> str:
        """The path in one word."""
        return ".".join(self.path)


def locate(loc: Sequence[int | str], raw: Any, root: Model = Experiment) -> Place:
    """The place of a pydantic location in the model that `raw` describes."""
    place = Place((), None, None, root)
    model: Model | None = root
    value, tagged, short = raw, False, False
    for item in loc:
        if tagged:
            tagged = False
            continue
        if short and model:
            # A number stands for a section with this one field.
            return Place(place.path, model, model.model_fields.get(str(item)), root)
        field = model.model_fields.get(str(item)) if model else place.field
        place = Place((*place.path, str(item)), model, field, root)
        if model and field:
            value = child(value, str(item), field)
            short = isinstance(value, int | float) and NUMBERS in kinds(field)
            value = {"name": NUMBERS} if short else value
            model, tagged = section(field, value), _is_union(field)
        else:
            model = None
    return place


def tree(
    model: Model, raw: Any, prefix: tuple[str, ...] = (), kind: str = ""
) -> Iterator[tuple[str, str]]:
    """Every path below `model`, with the kind it belongs to where `raw` chose another one."""
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        yield ".".join(path), kind
        value = child(raw, name, field)
        chosen = section(field, value)
        if chosen:
            yield from tree(chosen, value, path, kind)
        for other, member in kinds(field).items():
            if member is not chosen:
                yield from tree(member, {}, path, other)
