"""Fixed points and exact reductions on quadratic clients, in float64.

Client i has f_i(x) = (a_i / 2) ||x - b_i||^2. K local gradient steps of rate lr bring x to
b_i + (1 - lr a_i)^K (x - b_i), so that with r_i = 1 - (1 - lr a_i)^K an averaged round is
x+ = x - sum w_i r_i (x - b_i), whose fixed point is sum w_i r_i b_i / sum w_i r_i.
The optimum of the objective sum p_i f_i is sum p_i a_i b_i / sum p_i a_i.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quadratics import experiment, play, problem

from spatl_ray.parameters import Array

pytestmark = pytest.mark.integration

A = np.array([1.0, 2.0, 0.5, 3.0])
B = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32).astype(np.float64)
COUNTS = [1, 4, 2, 3]
LR, STEPS = 0.1, 5


def ends_at(path: Path, algorithm: str, rounds: int = 40, **overrides: object) -> Array:
    """The server's model after the rounds."""
    data = problem(A, B, COUNTS)
    backend, _ = play(experiment(algorithm, 4, rounds, **overrides), data, path)
    return backend.arrays()["model"]


def fixed_point(path: Path, algorithm: str, **overrides: object) -> Array:
    """Where rounds that map each coordinate of x to m x + c end, from the first two rounds.

    From x_0 = 0 they give x_1 = c and x_2 = (m + 1) c, and the fixed point c / (1 - m) is
    x_1^2 / (2 x_1 - x_2).
    """
    first, second = (ends_at(path / str(n), algorithm, n, **overrides) for n in (1, 2))
    point: Array = first**2 / (2 * first - second)
    return point


def mean_of(weights: Array) -> Array:
    """The weighted mean of the clients' optima."""
    mean: Array = (weights[:, None] * B).sum(axis=0) / weights.sum()
    return mean


def weights(objective: str) -> Array:
    """p_i."""
    return np.full(4, 0.25) if objective == "uniform" else np.array(COUNTS) / 10


@pytest.mark.parametrize("objective", ["uniform", "samples"])
def test_fedavg_ends_at_its_own_fixed_point(tmp_path: Path, objective: str) -> None:
    r = 1 - (1 - LR * A) ** STEPS
    expected = mean_of(weights(objective) * r)
    assert fixed_point(tmp_path, "fedavg", objective=objective) == pytest.approx(expected, abs=1e-9)
    assert np.abs(expected - mean_of(weights(objective) * A)).max() > 1e-2


@pytest.mark.parametrize("objective", ["uniform", "samples"])
def test_fedprox_ends_at_its_own_fixed_point(tmp_path: Path, objective: str) -> None:
    """A proximal step maps y - z to (1 - lr (a + mu)) (y - z), z = (a b + mu x) / (a + mu)."""
    mu = 0.7
    r = (1 - (1 - LR * (A + mu)) ** STEPS) * A / (A + mu)
    got = fixed_point(tmp_path, "fedprox", objective=objective, options={"mu": mu})
    assert got == pytest.approx(mean_of(weights(objective) * r), abs=1e-9)


@pytest.mark.parametrize("objective", ["uniform", "samples"])
def test_scaffold_ends_at_the_optimum(tmp_path: Path, objective: str) -> None:
    got = ends_at(tmp_path, "scaffold", objective=objective)
    assert got == pytest.approx(mean_of(weights(objective) * A), abs=1e-7)


@pytest.mark.parametrize(("objective", "sample_ratio"), [("uniform", 0.5), ("samples", 0.75)])
def test_scaffold_reaches_the_optimum_with_momentum_and_part_of_the_clients(
    tmp_path: Path, objective: str, sample_ratio: float
) -> None:
    got = ends_at(
        tmp_path,
        "scaffold",
        rounds=70,
        objective=objective,
        sample_ratio=sample_ratio,
        training={"momentum": 0.8, "lr": 0.04},
    )
    assert got == pytest.approx(mean_of(weights(objective) * A), abs=1e-6)


@pytest.mark.parametrize(
    "control",
    [{"variate": "sent"}, {"rate": 0.5}, {"strength": 0.6, "variate": "sent"}],
    ids=["sent", "rate", "strength"],
)
def test_control_options_keep_a_fixed_point(tmp_path: Path, control: dict[str, object]) -> None:
    """Full strength ends at the optimum at any rate; less strength between it and FedAvg's point."""
    got = ends_at(tmp_path, "scaffold", rounds=50, options={"control": control})
    optimum = mean_of(weights("uniform") * A)
    if "strength" not in control:
        assert got == pytest.approx(optimum, abs=1e-7)
        return
    fedavg = mean_of(weights("uniform") * (1 - (1 - LR * A) ** STEPS))
    assert 0 < np.linalg.norm(got - optimum) < np.linalg.norm(fedavg - optimum)


def test_sent_and_derived_variates_agree(tmp_path: Path) -> None:
    sent = ends_at(tmp_path / "s", "scaffold", 20, options={"control": {"variate": "sent"}})
    derived = ends_at(tmp_path / "d", "scaffold", 20, options={"control": {"variate": "derived"}})
    assert sent == pytest.approx(derived, abs=1e-13)


def test_fednova_with_equal_steps_is_fedavg(tmp_path: Path) -> None:
    options = {"training": {"momentum": 0.9, "lr": 0.01}, "objective": "samples"}
    nova = ends_at(tmp_path / "n", "fednova", 30, **options)
    assert nova == pytest.approx(ends_at(tmp_path / "a", "fedavg", 30, **options), abs=1e-10)


def test_fednova_removes_the_bias_of_unequal_steps(tmp_path: Path) -> None:
    """Batches of one sample and one epoch give tau_i = n_i steps.

    With r_i = 1 - (1 - lr a_i)^tau_i, FedAvg ends at the mean of b_i weighted by r_i, FedNova at the
    one weighted by r_i / tau_i, which for small lr is a_i: the optimum.
    """
    training = {"epochs": 1, "steps": None, "batch_size": 1, "lr": 0.05}
    options = {"training": training, "objective": "uniform"}
    nova = fixed_point(tmp_path / "n", "fednova", **options)
    average = fixed_point(tmp_path / "a", "fedavg", **options)
    tau = np.array(COUNTS)
    r = 1 - (1 - 0.05 * A) ** tau
    assert nova == pytest.approx(mean_of(r / tau), abs=1e-8)
    assert average == pytest.approx(mean_of(r), abs=1e-8)
    optimum = mean_of(A)
    assert np.linalg.norm(nova - optimum) < 0.3 * np.linalg.norm(average - optimum)


def test_fedprox_without_a_proximal_term_is_fedavg(tmp_path: Path) -> None:
    prox = ends_at(tmp_path / "p", "fedprox", 7, options={"mu": 0.0})
    assert np.array_equal(prox, ends_at(tmp_path / "a", "fedavg", 7))


@pytest.mark.parametrize("variate", ["derived", "sent"])
@pytest.mark.parametrize("sample_ratio", [1.0, 0.5])
def test_dense_spatl_without_a_local_part_is_scaffold(
    tmp_path: Path, variate: str, sample_ratio: float
) -> None:
    control = {"variate": variate}
    options: dict[str, object] = {"sample_ratio": sample_ratio, "objective": "samples"}
    spatl = ends_at(
        tmp_path / "p",
        "spatl",
        9,
        options={"keep": 1.0, "transfer": False, "control": control},
        **options,
    )
    scaffold = ends_at(tmp_path / "c", "scaffold", 9, options={"control": control}, **options)
    assert np.array_equal(spatl, scaffold)


@pytest.mark.parametrize("denominator", ["senders", "cohort"])
def test_dense_spatl_without_control_and_local_part_is_fedavg(
    tmp_path: Path, denominator: str
) -> None:
    """Both denominators are the same when everyone sends everything."""
    options = {"keep": 1.0, "transfer": False, "control": None, "denominator": denominator}
    spatl = ends_at(tmp_path / "p", "spatl", 9, options=options)
    assert np.array_equal(spatl, ends_at(tmp_path / "a", "fedavg", 9))


def test_selection_off_is_keep_one(tmp_path: Path) -> None:
    off = ends_at(tmp_path / "o", "spatl", 9, options={"selection": False})
    assert np.array_equal(off, ends_at(tmp_path / "k", "spatl", 9, options={"keep": 1.0}))


def test_error_feedback_ends_where_dense_averaging_does(tmp_path: Path) -> None:
    """What is not sent is kept, so that the sparse run ends near FedAvg's point, not elsewhere."""
    training = {"lr": 0.03}
    sparse = {"keep": 0.34, "transfer": False, "control": None}
    feedback = {**sparse, "error_feedback": True, "denominator": "cohort"}
    dense = ends_at(tmp_path / "d", "fedavg", 25, training=training)
    got = ends_at(tmp_path / "f", "spatl", 25, training=training, options=feedback)
    lost = ends_at(
        tmp_path / "l",
        "spatl",
        25,
        training=training,
        options={**sparse, "denominator": "cohort"},
    )
    assert np.abs(got - dense).max() < 0.4 * np.abs(lost - dense).max()


def test_server_learning_rate_scales_the_step(tmp_path: Path) -> None:
    one = ends_at(tmp_path / "1", "fedavg", 1)
    half = ends_at(tmp_path / "h", "fedavg", 1, options={"server_lr": 0.5})
    assert half == pytest.approx(one / 2, abs=1e-15)
