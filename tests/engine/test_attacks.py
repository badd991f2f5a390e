"""What hostile clients send, in closed form; who they are; what they keep and train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from identity import everything
from small_runs import ran, small, table

from spatl_ray.algorithms.base import BUFFERS, CONTROL, DELTA, ClientView
from spatl_ray.config import Experiment
from spatl_ray.data.dataset import Dataset
from spatl_ray.data.federated import FederatedData
from spatl_ray.engine.attacks import Attack, hostile_clients
from spatl_ray.engine.population import Population
from spatl_ray.experiments import experiment_from
from spatl_ray.training.samples import batch_of
from spatl_ray.update import VALUE_TYPES, WHOLE, Part, element_mask

LIARS = ("sign_flip", "scaled", "gaussian")


def attacked(name: str, clients: int = 4, seed: int = 0, **fields: Any) -> Experiment:
    attack = {"name": name, "share": 1.0, **fields}
    return experiment_from({"clients": clients, "seed": seed, "attack": attack})


def view(client: int = 0, round_: int = 0) -> ClientView:
    return ClientView(client, round_, 0.1, 1, {}, {}, lambda *_: None, seed=0)


def sent(name: str, values: np.ndarray, scale: float, **at: int) -> np.ndarray:
    parts = {DELTA: Part(WHOLE, values)}
    return Attack(attacked(name, scale=scale)).sent(view(**at), parts)[DELTA].values


@pytest.mark.parametrize("kind", VALUE_TYPES)
@pytest.mark.parametrize(("name", "factor"), [("sign_flip", -2.5), ("scaled", 2.5)])
def test_updates_are_multiplied_at_the_sent_positions(name: str, factor: float, kind: str) -> None:
    """By 2.5 and values that every type holds."""
    mask = element_mask(np.array([True, False, True, True]))
    values = np.array([1.0, -2.0, 0.5], dtype=VALUE_TYPES[kind])
    parts = {DELTA: Part(mask, values), CONTROL: Part(mask, -values)}
    found = Attack(attacked(name, scale=2.5)).sent(view(), parts)
    assert list(found) == [DELTA, CONTROL]
    for part, sign in ((found[DELTA], 1), (found[CONTROL], -1)):
        assert part.mask is mask
        assert part.values.dtype == values.dtype
        expected = sign * factor * np.array([1.0, -2.0, 0.5])
        assert part.values.astype(np.float64).tolist() == expected.tolist()
    assert values.astype(np.float64).tolist() == [1.0, -2.0, 0.5]


def test_noise_has_the_updates_size_times_the_scale() -> None:
    """Of n = 10^5 values: mean, deviation and correlation within five standard errors."""
    n = 100_000
    values = np.random.default_rng(0).uniform(0, 1, n).astype(np.float32)
    rms = np.sqrt(np.square(values, dtype=np.float64).mean())
    noise = sent("gaussian", values, 3.0).astype(np.float64) / (3.0 * rms)
    assert abs(noise.mean()) < 5 / np.sqrt(n)
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * n)
    assert abs(np.corrcoef(noise, values)[0, 1]) < 5 / np.sqrt(n)
    assert not sent("gaussian", np.zeros(5), 3.0).any()
    assert sent("gaussian", np.zeros(0), 3.0).shape == (0,)


def test_noise_is_keyed_by_round_client_and_part() -> None:
    values = np.ones(8)
    first = sent("gaussian", values, 1.0, client=1, round_=2)
    assert first.tobytes() == sent("gaussian", values, 1.0, client=1, round_=2).tobytes()
    others = [sent("gaussian", values, 1.0, **at) for at in ({"client": 1}, {"round_": 2})]
    parts = {DELTA: Part(WHOLE, values), CONTROL: Part(WHOLE, values)}
    both = Attack(attacked("gaussian", scale=1.0)).sent(view(1, 2), parts)
    assert both[DELTA].values.tolist() == first.tolist()
    for other in (*others, both[CONTROL].values):
        assert not np.isin(other, first).any()


@pytest.mark.parametrize("name", LIARS)
def test_what_stays_as_it_is(name: str) -> None:
    """Buffers, and all that honest clients send."""
    parts = {DELTA: Part(WHOLE, np.ones(3)), BUFFERS: Part(WHOLE, np.ones(2))}
    experiment = attacked(name, share=0.5)
    attack, hostile = Attack(experiment), hostile_clients(experiment)
    assert hostile.sum() == 2
    for client in range(4):
        found = attack.sent(view(client), parts)
        assert found[BUFFERS] is parts[BUFFERS]
        assert (found[DELTA] is parts[DELTA]) != hostile[client]
        assert attack.lies(client) == hostile[client]


def test_values_beyond_their_type_become_infinite() -> None:
    found = sent("sign_flip", np.array([1.0, -1.0, 0.0], dtype=np.float16), 1e6)
    assert found.tolist() == [-np.inf, np.inf, 0.0]


@pytest.mark.parametrize(("clients", "share", "count"), [(10, 0.25, 3), (20, 0.2, 4), (3, 1.0, 3)])
def test_how_many_are_hostile(clients: int, share: float, count: int) -> None:
    """The nearest whole number of clients, the same ones for every attack."""
    found = {
        hostile_clients(attacked(name, clients, share=share)).tobytes()
        for name in (*LIARS, "label_flip")
    }
    (bits,) = found
    assert np.frombuffer(bits, np.bool_).sum() == count


def test_each_client_is_hostile_as_often_as_any_other() -> None:
    """Of 400 seeds, 100 times expected, with standard deviation sqrt(400 * 0.25 * 0.75) = 8.7."""
    times = sum(
        hostile_clients(attacked("scaled", 8, seed, share=0.25)).astype(int) for seed in range(400)
    )
    assert times.sum() == 800
    assert np.abs(times - 100).max() < 5 * 8.7


def test_nobody_is_hostile_without_an_attack_and_ids_are_those_of_before() -> None:
    """They are held against those of before in tests/test_later_fields.py."""
    honest = Experiment()
    assert not hostile_clients(honest).any()
    assert not any(Attack(honest).lies(client) for client in range(honest.clients))
    assert "attack" not in honest.model_dump()
    ids = {attacked(name).run_id for name in (*LIARS, "label_flip")}
    assert len({*ids, honest.run_id}) == 5


def test_hostile_clients_know_flipped_labels_of_their_training_split_only() -> None:
    x, y = np.arange(6, dtype=np.float32)[:, None], np.array([0, 1, 2, 0, 1, 2])
    bounds = np.array([[0, 2, 3, 3], [3, 5, 5, 6]])
    data = FederatedData(Dataset("six", x, y, x, y, 4), np.arange(6), bounds)
    flipped = np.array([False, True])
    clients = Population(data, torch.device("cpu"), torch.float32, None, 0, flipped)
    assert clients.samples(0, "train")[1].tolist() == [0, 1]
    assert clients.samples(0, "validation")[1].tolist() == [2]
    assert clients.samples(1, "train")[1].tolist() == [3, 2]
    assert clients.sample(1, "train", 1)[1].item() in (3, 2)
    assert clients.samples(1, "test")[1].tolist() == [2]
    assert clients.global_y.tolist() == y.tolist()
    batches = [np.array([1, 0])] * 2
    _, labels = batch_of([clients.indexed(client, "train") for client in (0, 1)], batches)
    assert labels.tolist() == [1, 0, 2, 3]


KEEPING: dict[str, dict[str, Any]] = {
    "fedper": {"name": "fedper"},
    "scaffold": {"name": "scaffold"},
    "scaffold, sent": {"name": "scaffold", "control": {"variate": "sent"}},
    "spatl with residuals": {
        "name": "spatl",
        "keep": 0.5,
        "control": {"variate": "sent"},
        "denominator": "cohort",
        "error_feedback": True,
    },
}


@pytest.mark.integration
@pytest.mark.parametrize("name", KEEPING)
def test_hostile_clients_keep_what_honest_ones_do(tmp_path: Path, name: str) -> None:
    """After one round, the server is another, the clients and the bytes are not."""
    found = []
    for folder, attack in (("honest", None), ("hostile", {"name": "sign_flip", "share": 0.5})):
        experiment = small(tmp_path / folder, KEEPING[name], rounds=1, attack=attack)
        ran(experiment)
        found.append(everything(experiment))
    honest, hostile = found
    assert honest.keys() == hostile.keys()
    states = [key for key in honest if key.startswith("client ")]
    assert states
    for key in [*states, "clients.bytes_up", "clients.train_loss"]:
        assert honest[key].tobytes() == hostile[key].tobytes(), key
    moved = [key for key in honest if key.startswith("model/")]
    assert any(honest[key].tobytes() != hostile[key].tobytes() for key in moved)


@pytest.mark.integration
def test_the_results_tell_who_is_hostile(tmp_path: Path) -> None:
    experiment = small(tmp_path / "hostile", rounds=1, attack={"name": "scaled", "share": 0.5})
    ran(experiment)
    rows = table(tmp_path / "hostile", "clients")
    assert (rows["hostile"] == hostile_clients(experiment)[rows["client"]]).all()
    ran(small(tmp_path / "honest", rounds=1))
    assert table(tmp_path / "honest", "clients")["hostile"].isna().all()
