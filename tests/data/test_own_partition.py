"""Own partitions: how they are called, what they may return, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from partitions import balanced, covers, deal

from spatl_ray import config
from spatl_ray.errors import ConfigError, DataError, PluginError


def own(function: str, **options: object) -> config.OwnPartition:
    return config.OwnPartition(name=f"own_partitions:{function}", options=options)


def test_a_list_of_arrays_becomes_a_partition() -> None:
    partition = deal(balanced(2, 6), own("rows", skip=1), 3)
    assert [partition.client(i).tolist() for i in range(3)] == [
        [1, 4, 7, 10],
        [2, 5, 8, 11],
        [3, 6, 9],
    ]
    assert partition.indices.dtype == partition.offsets.dtype == np.int64


def test_plain_lists_do() -> None:
    assert deal(balanced(2, 6), own("as_lists"), 3).indices.tolist() == [0, 1, 2]


def test_a_partition_stays_as_it_is() -> None:
    partition = deal(balanced(2, 6), own("drawn"), 3, seed=5)
    assert np.array_equal(partition.indices, np.random.default_rng(5).permutation(12))
    assert covers(partition, 12)
    assert partition.transform is not None
    assert partition.transform(0, np.array([1]), np.ones((1, 1), np.float32)).tolist() == [[2]]


def test_it_can_be_checked_in_a_moment() -> None:
    """A million samples; the checks sort nothing."""
    assert covers(deal(balanced(10, 100_000), own("rows"), 1000), 1_000_000)


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ("a part too few", "the deal must have clients=2 parts, got 1"),
        ("floats", r"client 1's indices must be a flat array of integers, got one of float64"),
        ("booleans", r"client 0's indices must be a flat array of integers, got one of bool"),
        ("a table", r"client 0's indices must be a flat array of integers, .*shape \(2, 2\)"),
        ("ragged", "client 0's indices must be an array of integers"),
        ("text", "client 0's indices must be an array of integers, got a str"),
        ("a number", "client 0's indices must be an array of integers, got a int"),
        ("too large", r"sample indices must be in \[0, 12\), got 0 to 12"),
        ("negative", r"sample indices must be in \[0, 12\), got -1 to 11"),
        ("twice", "clients' samples must be disjoint, got sample 5 several times"),
        ("twice in one", "clients' samples must be disjoint, got sample 0 several times"),
        ("nobody", r"left 1 of 2 clients with no sample \(client 1"),
        ("short ends", "the deal must have clients=2 parts, got 1"),
        ("falling ends", "offsets must rise from 0 to 12"),
        ("open ends", "offsets must rise from 0 to 12, got from 0 to 11"),
        ("narrow", "indices must be a flat NumPy array of int64, got int32"),
        ("a list", "indices must be a flat NumPy array of int64, got list"),
        ("no call", "transform must be callable, got a str"),
        ("other shape", r"transform must keep float32 and shape \(5, 1\), got float32 .*\(5, 0\)"),
        ("other type", r"transform must keep float32 .*, got float64"),
        ("no array", "transform must return an array, got a list"),
    ],
)
def test_what_breaks_a_rule_is_named(what: str, rule: str) -> None:
    with pytest.raises(DataError, match=rf"partition .*own_partitions:returns.*{rule}"):
        deal(balanced(2, 6), own("returns", what=what), 2)


def test_another_kind_of_thing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.name must name a function.*returns a dict"):
        deal(balanced(2, 6), own("returns", what="a dict"), 2)


@pytest.mark.parametrize("into", ["labels", "features", "groups", "indices", "seen"])
def test_one_that_writes_into_the_data_is_refused(into: str) -> None:
    """All labels could be set to 0, and a run would learn that well."""
    labels, groups = balanced(2, 6), np.arange(12)
    features = np.arange(12, dtype=np.float32)[:, None]
    before = [array.copy() for array in (labels, features, groups)]
    name = {
        "indices": "partition transform 'own_partitions:shuffle_indices'",
        "seen": "partition transform 'own_partitions:double_in_place'",
    }.get(into, r"partition\.name 'own_partitions:writes'")
    with pytest.raises(
        PluginError, match=rf"{name} raised, at .*own_partitions.py:\d+: .*read-only"
    ):
        deal(labels, own("writes", into=into), 2, features=features, groups=groups)
    for array, old in zip((labels, features, groups), before, strict=True):
        assert np.array_equal(array, old)
        assert array.flags.writeable


@pytest.mark.parametrize("what", ["labels", "features", "groups"])
def test_one_that_unlocks_the_data_is_refused(what: str) -> None:
    labels, groups = balanced(2, 6), np.arange(12)
    features = np.arange(24, dtype=np.float32).reshape(12, 1, 2)
    before = [array.copy() for array in (labels, features, groups)]
    match = (
        r"partition\.name 'own_partitions:unlocks' raised, at .*own_partitions.py:\d+: .*WRITEABLE"
    )
    with pytest.raises(PluginError, match=match):
        deal(labels, own("unlocks", what=what), 2, features=features, groups=groups)
    for array, old in zip((labels, features, groups), before, strict=True):
        assert np.array_equal(array, old)


@pytest.mark.parametrize("options", [{}, {"what": "twice", "beta": 1}])
def test_options_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    match = r"partition\.options must fit the arguments of own_partitions:returns"
    with pytest.raises(ConfigError, match=match):
        deal(balanced(2, 6), own("returns", **options), 2)


@pytest.mark.parametrize("name", ["own_partitions:nothing", "no_such_module:rows"])
def test_a_name_that_leads_nowhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"partition\.name must name something.*can be imported"):
        deal(balanced(2, 6), config.OwnPartition(name=name), 2)
