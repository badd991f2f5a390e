"""Own samplers by dotted name: a good one, and every way to break the rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort_draws import some_draw

from spatl_ray import config
from spatl_ray.arrays import Doubles, Integers
from spatl_ray.errors import ConfigError, PluginError
from spatl_ray.federation.sampler import Draw, Sampler, checked
from spatl_ray.federation.samplers import make_sampler

ANSWERS: dict[str, Callable[[], Any]] = {
    "a list": lambda: [0, 1],
    "floats": lambda: np.array([0.0, 1.0]),
    "booleans": lambda: np.array([True, False]),
    "a table": lambda: np.array([[0, 1]]),
    "too many": lambda: np.array([0, 1, 2, 5]),
    "negative": lambda: np.array([0, -1]),
    "beyond": lambda: np.array([0, 2**63 + 5], np.uint64),
    "twice": lambda: np.array([5, 1, 5]),
    "absent": lambda: np.array([1, 4]),
}
RULES = {
    "a list": "be a one-dimensional integer array, got a list",
    "floats": r"be a one-dimensional integer array, got an array of float64 with shape \(2,\)",
    "booleans": r"be a one-dimensional integer array, got an array of bool with shape \(2,\)",
    "a table": r"be a one-dimensional integer array, got an array of int64 with shape \(1, 2\)",
    "too many": "have at most 3 clients, got 4",
    "negative": r"be in \[0, 6\), got client -1",
    "beyond": r"be in \[0, 6\), got client 9223372036854775813",
    "twice": "be distinct, got client 5 twice",
    "absent": "be available, got client 4, who cannot take part",
}
SAMPLES = np.arange(1, 7)


class LargestFirst(Sampler):
    """The available clients with the most samples; `chance` is their samples."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.at_most = int(options["at_most"])

    def cohort(self, draw: Draw) -> Integers:
        clients = np.argsort(-self.samples, kind="stable").astype(np.int32)
        there = clients[draw.available(clients)]
        return there[: min(draw.size, self.at_most)]

    def chance(self, clients: Integers) -> Doubles:
        return self.samples[clients]


class Broken(Sampler):
    """Answers what its options say."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def cohort(self, draw: Draw) -> Integers:
        return ANSWERS[self.options["answer"]]()

    def chance(self, clients: Integers) -> Doubles:
        # Options are plain data: arrays travel as the name of one.
        chance = self.options["chance"]
        return CHANCES[chance] if isinstance(chance, str) else chance


CHANCES = {
    "three": np.ones(3),
    "texts": np.array(["1", "2"]),
    "zero": np.array([1.0, 0.0]),
    "tiny": np.array([1.0, 1e-13]),
    "nan": np.array([np.nan, 1.0]),
    "infinite": np.array([1.0, np.inf]),
}


class Greedy(Sampler):
    """Writes into what it is given, in the method that its options say."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.moment = options["in"]

    def bind(self, samples: Integers, seed: int, size: int) -> None:
        super().bind(samples, seed, size)
        if self.moment == "bind":
            samples += 1

    def cohort(self, draw: Draw) -> Integers:
        self.samples[0] = 99
        return np.arange(draw.size)

    def chance(self, clients: Integers) -> Doubles:
        clients.sort()
        return np.ones(len(clients))


class NoSampler:
    """Not what is asked for."""

    def __init__(self, options: dict[str, Any]) -> None:
        pass


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def own(name: str, **options: Any) -> Sampler:
    spec = config.OwnSampler(name=f"test_own_sampler:{name}", options=options)
    return make_sampler(spec, SAMPLES, 3, 4)


def test_an_own_sampler_draws() -> None:
    sampler = own("LargestFirst", at_most=2)
    there = np.array([True, True, True, True, False, True])
    cohort = sampler.cohort(some_draw(3, there=there))
    assert cohort.dtype == np.int64
    assert cohort.tolist() == [5, 3]
    assert sampler.chance(cohort).tolist() == [6.0, 4.0]


@pytest.mark.parametrize("answer", RULES)
def test_a_broken_cohort_is_refused(answer: str) -> None:
    there = np.array([True, True, True, True, False, True])
    name = "sampler.name 'test_own_sampler:Broken': the cohort of round 8 must "
    with pytest.raises(ConfigError, match=name + RULES[answer]):
        own("Broken", answer=answer).cohort(some_draw(3, 8, there=there))


def test_a_good_cohort_passes_as_it_is() -> None:
    cohort = checked(np.array([4, 0, 2], np.uint8), some_draw(3), 5, "some:Name")
    assert cohort.dtype == np.int64
    assert cohort.tolist() == [4, 0, 2]
    assert checked(np.empty(0, np.int64), some_draw(3), 5, "some:Name").shape == (0,)


@pytest.mark.parametrize(
    ("chance", "rule"),
    [
        ([1.0, 2.0], "chance must be an array of 2 numbers, one a client, got a list"),
        ("three", r"array of 2 numbers, one a client, got an array of float64 with shape \(3,"),
        ("texts", "array of 2 numbers"),
        ("zero", "chance must be finite and at least 1e-12, got 0 for client 4"),
        ("tiny", "chance must be finite and at least 1e-12, got 1e-13 for client 4"),
        ("nan", "chance must be finite and at least 1e-12, got nan for client 2"),
        ("infinite", "chance must be finite and at least 1e-12, got inf for client 4"),
    ],
)
def test_a_broken_chance_is_refused(chance: Any, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"sampler.name 'test_own_sampler:Broken': .*{rule}"):
        own("Broken", chance=chance).chance(np.array([2, 4]))


@pytest.mark.parametrize("moment", ["bind", "cohort", "chance"])
def test_one_that_writes_into_what_it_is_given_is_refused(moment: str) -> None:
    clients = np.array([4, 2])
    match = rf"sampler\.name 'test_own_sampler:Greedy' raised in {moment}, at .*: .*read-only"
    with pytest.raises(PluginError, match=match):  # noqa: PT012
        sampler = own("Greedy", **{"in": moment})
        sampler.cohort(some_draw(3)) if moment == "cohort" else sampler.chance(clients)
    assert SAMPLES.tolist() == [1, 2, 3, 4, 5, 6]
    assert clients.tolist() == [4, 2]


def test_what_is_no_sampler_is_refused() -> None:
    rule = r"sampler\.name must name a subclass of .*Sampler, got .*NoSampler': a NoSampler"
    with pytest.raises(ConfigError, match=rule):
        own("NoSampler")


def test_options_that_do_not_fit_are_refused() -> None:
    rule = r"sampler\.options do not fit test_own_sampler:LargestFirst: KeyError\('at_most'\)"
    with pytest.raises(ConfigError, match=rule):
        own("LargestFirst", most=2)


def test_a_name_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.name must name something .*got .*Nothing"):
        own("Nothing")
