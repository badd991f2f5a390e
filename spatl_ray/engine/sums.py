"""Groups' sums joined, on a node or at the aggregator: exact, so that grouping changes no bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spatl_ray.aggregation.masked import Partial
from spatl_ray.engine.blueprint import Blueprint
from spatl_ray.engine.messages import GroupSums


def merged(blueprint: Blueprint, partials: Iterable[Partial]) -> Partial:
    """All sums together; they stay as they are."""
    together = Partial(blueprint.algorithm.accumulators(), blueprint.levels)
    for partial in partials:
        together.merge(partial)
    return together


def joined(blueprint: Blueprint, groups: Sequence[GroupSums]) -> GroupSums:
    """Several groups of one round as one, which has the number of the first.

    Args:
        blueprint: of the run.
        groups: at least one.
    """
    first = min(groups, key=lambda group: group.group)
    accepted = tuple(client for group in groups for client in group.accepted)
    partial = merged(blueprint, [group.partial for group in groups])
    return GroupSums(first.round, first.group, accepted, partial)
