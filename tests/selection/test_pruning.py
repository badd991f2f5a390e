"""From importance to masks: coupled, within the budget, and as large as fits."""

from __future__ import annotations

import numpy as np
import pytest
from environments import environment_of
from flat_models import flatten, split_model
from hypothesis import given, settings
from hypothesis import strategies as st
from pruners import pruner_of

from spatl_ray.errors import ConfigError
from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.pruning import LEAST, Pruner
from spatl_ray.selection.salience import FLOOR

NETWORKS = {
    "resnet20": flatten(split_model("resnet20", width=4)),
    "lenet": flatten(split_model("lenet")),
    "vgg11": flatten(split_model("vgg11", (1, 32, 32), width=4), (1, 32, 32)),
    "mlp": flatten(split_model("mlp", hidden=[32, 16])),
}
SHAPES = {"vgg11": (1, 32, 32)}
PRUNERS = {n: pruner_of(m, shape=SHAPES.get(n, (1, 16, 16))) for n, m in NETWORKS.items()}
BY_PARAMETERS = pruner_of(NETWORKS["lenet"], "parameters")


def drawn(pruner: Pruner, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and importance."""
    generator = np.random.default_rng(seed)
    return generator.random(len(pruner.coupling.labels)), generator.normal(0, 2, len(pruner.layers))


@given(st.sampled_from(sorted(PRUNERS)), st.integers(0, 99), st.floats(0.05, 1))
@settings(deadline=None, max_examples=60)
def test_masks_obey_coupling_and_budget(name: str, seed: int, budget: float) -> None:
    pruner = PRUNERS[name]
    scores, importance = drawn(pruner, seed)
    floor = pruner.floor
    if budget < floor:
        with pytest.raises(ConfigError, match=rf"at least {floor:.4f} .* keep ratio of 0.1, got"):
            pruner.within(scores, importance, budget)
        return
    pruned = pruner.within(scores, importance, budget)
    assert np.array_equal(pruner.coupling.closed(pruned.bits), pruned.bits)
    assert pruned.share == pruner.share(pruned.bits) <= budget
    assert (pruned.ratios <= 1).all()
    at_floor = pruner.kept(scores, np.full(len(pruner.layers), FLOOR))
    assert (pruned.ratios >= FLOOR).all() or at_floor.share > budget


@pytest.mark.parametrize(("seed", "least_fits"), [(26, True), (45, False)])
def test_the_floor_can_be_met_where_coupled_layers_disagree(seed: int, least_fits: bool) -> None:
    """A channel that one of them has to keep all keep: they keep more than layers that agree."""
    pruner = PRUNERS["resnet20"]
    scores, importance = drawn(pruner, seed)
    scores = np.round(3 * scores)
    at_floor, at_least = (
        pruner.kept(scores, np.full(len(pruner.layers), ratio)) for ratio in (FLOOR, LEAST)
    )
    assert at_floor.share > pruner.floor
    assert (at_least.share <= pruner.floor) == least_fits
    pruned = pruner.within(scores, importance, pruner.floor)
    assert pruned.share <= pruner.floor
    assert np.ptp(pruned.ratios) == 0
    assert (pruned.ratios[0] < FLOOR) == least_fits


def test_the_floor_is_that_of_layers_that_agree() -> None:
    for pruner in PRUNERS.values():
        nothing = np.zeros(len(pruner.coupling.labels))
        least = pruner.kept(nothing, np.full(len(pruner.layers), FLOOR))
        assert pruner.floor == least.share


@pytest.mark.parametrize("name", PRUNERS)
def test_ratios_are_in_proportion_to_the_importance(name: str) -> None:
    pruner = PRUNERS[name]
    scores, importance = drawn(pruner, 0)
    ratios = pruner.within(scores, importance / 4, 0.5).ratios
    free = (ratios > FLOOR) & (ratios < 1)
    assert free.sum() > 1
    assert np.ptp(np.log(ratios[free]) - importance[free] / 4) < 1e-9


def test_only_differences_of_the_importance_matter() -> None:
    pruner = PRUNERS["resnet20"]
    scores, importance = drawn(pruner, 1)
    one, other = (pruner.within(scores, importance + shift, 0.5).bits for shift in (0, 7.5))
    assert np.array_equal(one, other)


def test_nothing_is_removed_if_everything_fits() -> None:
    pruner = PRUNERS["resnet20"]
    scores, importance = drawn(pruner, 2)
    assert pruner.within(scores, importance, 1.0).bits.all()


def test_a_larger_budget_keeps_what_a_smaller_one_kept() -> None:
    pruner = PRUNERS["vgg11"]
    scores, importance = drawn(pruner, 3)
    kept = [pruner.within(scores, importance, budget).bits for budget in (0.2, 0.4, 0.7)]
    assert not (kept[0] & ~kept[1]).any()
    assert not (kept[1] & ~kept[2]).any()


def test_a_global_threshold_keeps_the_best_of_all_layers() -> None:
    """Scores of one layer are ten times the other's: only their spread within the layer counts."""
    pruner = PRUNERS["lenet"]
    scores = np.concatenate([10 * np.array([1, 1, 1, 1, 1, 1.0]), np.arange(16.0)])
    pruned = pruner.over_all(scores, 0.5)
    kept = pruned.bits
    assert kept[:6].all()
    assert kept[6:].tolist() == [False] * 9 + [True] * 7
    assert pruner.threshold(scores, 0.6).share <= 0.6


def test_a_budget_of_parameters() -> None:
    scores, importance = drawn(BY_PARAMETERS, 0)
    pruned = BY_PARAMETERS.within(scores, importance, 0.97)
    assert pruned.share == BY_PARAMETERS.share(pruned.bits) <= 0.97
    assert pruned.share != BY_PARAMETERS.flops_share(pruned.bits)


def test_a_network_without_layers_to_prune() -> None:
    model: FlatModel = flatten(split_model("mlp", hidden=[]))
    with pytest.raises(ConfigError, match=r"^algorithm.selection must be false .* got true"):
        pruner_of(model)


# --- the environment ------------------------------------------------------------------------------


def test_each_step_of_an_episode_has_its_own_budget() -> None:
    environment = environment_of(budget=0.36, steps=2)
    environment.start()
    shares = [environment.step(np.zeros(environment.layers))[2].share for _ in range(2)]
    assert 0.5 < shares[0] <= 0.6
    assert 0.25 < shares[1] <= 0.36
    assert environment.is_over


def test_actions_of_an_episode_add_up() -> None:
    generator = np.random.default_rng(0)
    one, two = environment_of(budget=0.5), environment_of(budget=0.5, steps=2)
    first, second = generator.standard_normal((2, one.layers))
    at_once = one.decide(lambda seen: first + second)
    actions = iter([first, second])
    assert np.array_equal(two.decide(lambda seen: next(actions)).bits, at_once.bits)


def test_a_budget_below_the_floor_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.\d+ of the dense network's.*got 0.001"):
        environment_of(budget=0.001)
