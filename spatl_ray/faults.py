"""Faults of a config in words: each names field, value and rule."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spatl_ray.config import Experiment, Pretraining
from spatl_ray.fields import NUMBERS, OWN, Model, Place, bounds, kinds, locate, plain, tree

TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a name or a mapping",
}
"""What a value must be, by pydantic's name for the error."""

WHOLE: Mapping[Model, str] = {Experiment: "an experiment", Pretraining: "a pre-training"}
"""What a whole config is called."""

KEY = ("[key]",)
"""How pydantic ends the location of a fault in a key of a plain mapping."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def texts(error: ValidationError, raw: Any, root: Model = Experiment) -> tuple[str, ...]:
    """One line a fault, in the order of the fields.

    Args:
        error: what pydantic raised.
        raw: the mapping that it was raised for.
        root: the model that the mapping describes.
    """
    details = error.errors(include_url=False)
    return tuple(dict.fromkeys(_text(detail, raw, root) for detail in details))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` begins, else the one most like it, if one is like it at all."""
    words = list(known)
    begun = [each for each in words if len(word) > 1 and each.startswith(word)]
    return next(iter(begun or difflib.get_close_matches(word, words, n=1)), None)


def _text(detail: ErrorDetails, raw: Any, root: Model) -> str:
    place = locate(detail["loc"], raw, root)
    kind = "invalid_key" if place.path[-1:] == KEY else detail["type"]
    if kind in TYPES:
        return _wrong_type(place, detail)
    return WRITERS.get(kind, _other)(place, detail, raw)


def _shown(value: Any) -> str:
    """The value as Python writes it, cut to a readable length."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested very deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _must(place: Place, rule: str, value: Any) -> str:
    return f"{place.dotted} must be {rule}, got {_shown(value)}"


def _wrong_type(place: Place, detail: ErrorDetails) -> str:
    rule, value = TYPES[detail["type"]], detail["input"]
    if not place.path:
        return f"{WHOLE[place.root]} must be {rule}, got {_shown(value)}"
    text = _must(place, rule, value)
    if rule in ("an integer", "a number") and isinstance(value, str) and NUMBER.fullmatch(value):
        return f"{text}; write it without quotes"
    return text


def _interval(limits: Mapping[str, float]) -> str:
    """Bounds in words, as an interval where there are two."""
    lower = "at least" if "ge" in limits else "greater than"
    upper = "at most" if "le" in limits else "less than"
    low = limits.get("ge", limits.get("gt"))
    high = limits.get("le", limits.get("lt"))
    if low is None:
        return f"{upper} {high:g}"
    if high is None:
        return f"{lower} {low:g}"
    left, right = "[" if "ge" in limits else "(", "]" if "le" in limits else ")"
    return f"in {left}{_exact(low)}, {_exact(high)}{right}"


def _exact(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _out_of_bounds(place: Place, detail: ErrorDetails, raw: Any) -> str:
    limits = bounds(place.field) if place.field else {}
    return (
        _must(place, _interval(limits), detail["input"]) if limits else _other(place, detail, raw)
    )


def _not_finite(place: Place, detail: ErrorDetails, raw: Any) -> str:
    limits = bounds(place.field) if place.field else {}
    rule = f"finite and {_interval(limits)}" if limits else "finite"
    return _must(place, rule, detail["input"])


def _no_choice(place: Place, detail: ErrorDetails, raw: Any) -> str:
    annotation = plain(place.field.annotation) if place.field else None
    if get_origin(annotation) is not Literal:
        return _other(place, detail, raw)
    return _one_of(place.dotted, [str(each) for each in get_args(annotation)], detail["input"])


def _no_kind(place: Place, detail: ErrorDetails, raw: Any) -> str:
    value = detail["input"]
    known = list(kinds(place.field)) if place.field else []
    if not isinstance(value, Mapping):
        short = "a number" if NUMBERS in known else "a name"
        return _must(place, f"{short} or a mapping", value)
    own = "package.module:Name" if OWN in known else ""
    names = [name for name in known if name != OWN]
    return _one_of(f"{place.dotted}.name", names, value.get("name"), own)


def _one_of(field: str, names: list[str], value: Any, own: str = "") -> str:
    """The rule of a choice, with the name that was probably meant."""
    rule = ", ".join(names) + (f", or an own one as {own}" if own else "")
    close = nearest(value, names) if isinstance(value, str) else None
    hint = f"; did you mean {close!r}?" if close else ""
    return f"{field} must be one of {rule}, got {_shown(value)}{hint}"


def _pattern(place: Place, detail: ErrorDetails, raw: Any) -> str:
    pattern = detail.get("ctx", {}).get("pattern")
    return f"{place.dotted} must match {pattern}, got {_shown(detail['input'])}"


def _no_text_key(place: Place, detail: ErrorDetails, raw: Any) -> str:
    above = place.path[:-2] if place.path[-1:] == KEY else place.path[:-1]
    where = ".".join(above) or WHOLE[place.root]
    return f"keys of {where} must be text, got {_shown(detail['input'])}"


def _missing(place: Place, detail: ErrorDetails, raw: Any) -> str:
    return f"{place.dotted} must be given"


def _rule_of_model(place: Place, detail: ErrorDetails, raw: Any) -> str:
    """A rule that a model words itself: over several fields behind its path, of one field as a sentence."""
    text = detail["msg"].removeprefix("Value error, ")
    if place.path and text.startswith("must "):
        return f"{place.dotted} {text}"
    return f"{place.dotted}: {text}" if place.path else text


def _other(place: Place, detail: ErrorDetails, raw: Any) -> str:
    return f"{place.dotted}: {detail['msg']}, got {_shown(detail['input'])}"


def _unknown(place: Place, detail: ErrorDetails, raw: Any) -> str:
    return f"{place.dotted} is no field of {_owner(place)}{_meant(place, raw)}"


def _owner(place: Place) -> str:
    """What the unknown key was looked up in: a kind by its name, a section by its path."""
    path = ".".join(place.path[:-1])
    if place.owner is None or not path:
        return WHOLE[place.root]
    name = place.owner.model_fields.get("name")
    if name is None or get_origin(name.annotation) is not Literal:
        return f"an own {path}" if name is not None and name.is_required() else path
    return str(name.default)


def _meant(place: Place, raw: Any) -> str:
    """Where the key was probably meant to stand.

    The same word elsewhere in the config goes before a similar word beside it, and that goes
    before a similar word elsewhere.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for path, kind in tree(place.root, raw):
        owners[path].add(kind)
    if place.dotted in owners:
        return f"; it is a field of {', '.join(sorted(owners[place.dotted]))}"
    candidates = _alike(place, owners)
    chosen = [path for path in candidates if "" in owners[path]] or candidates
    if not chosen:
        return ""
    notes = [_with_kind(path, owners[path]) for path in chosen]
    return f"; did you mean {' or '.join(notes)}?"


def _alike(place: Place, known: Iterable[str]) -> list[str]:
    """The paths that are most like the place's, best rule first.

    A `name` is that of one thing: nobody means another thing's.
    """
    *section, key = place.path
    paths = [path for path in known if _last(path) != "name" or (path == "name" and not section)]
    same = [path for path in paths if _last(path) == key]
    beside = [path for path in paths if path.split(".")[:-1] == section]
    word = nearest(key, map(_last, beside))
    close = [path for path in beside if _last(path) == word]
    word = nearest(key, map(_last, paths))
    return same or close or [path for path in paths if _last(path) == word]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _with_kind(path: str, owners: set[str]) -> str:
    return path if "" in owners else f"{path} (of {', '.join(sorted(owners))})"


WRITERS: Mapping[str, Callable[[Place, ErrorDetails, Any], str]] = {
    "extra_forbidden": _unknown,
    "invalid_key": _no_text_key,
    "union_tag_invalid": _no_kind,
    "union_tag_not_found": _no_kind,
    "greater_than": _out_of_bounds,
    "greater_than_equal": _out_of_bounds,
    "less_than": _out_of_bounds,
    "less_than_equal": _out_of_bounds,
    "finite_number": _not_finite,
    "literal_error": _no_choice,
    "string_pattern_mismatch": _pattern,
    "missing": _missing,
    "value_error": _rule_of_model,
}
"""Who words which of pydantic's errors."""
