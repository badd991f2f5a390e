"""c = sum_i p_i c_i over rounds, whatever is masked, cast, clipped or rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quadratics import QuadraticSpatl, experiment, final_states, play, problem

from spatl_ray.algorithms.base import DELTA, ClientView, Proposal
from spatl_ray.data.federated import FederatedData
from spatl_ray.training.local import LocalResult
from spatl_ray.update import Part

pytestmark = pytest.mark.integration

CLIENTS = 8
COUNTS = [1, 2, 3, 1, 5, 2, 1, 4]


class RejectedSpatl(QuadraticSpatl):  # type: ignore[valid-type, misc]
    """SPATL whose clients 1 and 4 send NaN in every third round."""

    def propose(self, view: ClientView, results: Sequence[LocalResult]) -> Proposal:
        proposal = super().propose(view, results)
        if view.client in (1, 4) and view.round % 3 == 2:
            delta = proposal.parts[DELTA]
            broken = Part(delta.mask, np.full_like(delta.values, np.nan))
            parts = {**proposal.parts, DELTA: broken}
            return Proposal(parts, proposal.private)
        return proposal  # type: ignore[no-any-return]


def data() -> FederatedData:
    generator = np.random.default_rng(3)
    return problem(generator.uniform(0.5, 2, CLIENTS), generator.normal(size=(CLIENTS, 8)), COUNTS)


def gap(path: Path, options: Mapping[str, Any], **overrides: Any) -> tuple[float, float]:
    """The largest |c - sum p_i c_i| and the largest |c| after 30 rounds."""
    name = overrides.pop("name", "spatl")
    run = experiment(
        name, CLIENTS, 30, sample_ratio=0.5, objective="samples", options=options, **overrides
    )
    backend, outcomes = play(run, data(), path)
    c = backend.arrays()["control"]
    p = np.array(COUNTS) / sum(COUNTS)
    states = final_states(backend, outcomes)
    mean = sum(
        weight * s["control"].astype(np.float64) for weight, s in zip(p, states, strict=True)
    )
    return float(np.abs(c - mean).max()), float(np.abs(c).max())


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "derived": ({}, {}),
    "sent": ({"control": {"variate": "sent"}}, {}),
    "rate": ({"control": {"rate": 0.3}}, {}),
    "cohort": ({"denominator": "cohort"}, {}),
    "feedback": (
        {"control": {"variate": "sent"}, "denominator": "cohort", "error_feedback": True},
        {},
    ),
    "bfloat16": ({}, {"wire": {"uplink": "bfloat16"}}),
    "float16 both ways": ({}, {"wire": {"uplink": "float16", "downlink": "float16"}}),
    "variates down in bfloat16": ({}, {"wire": {"control": "bfloat16"}}),
    "bfloat16 sent": ({"control": {"variate": "sent"}}, {"wire": {"uplink": "bfloat16"}}),
    "clipped": ({}, {"aggregation": {"clip_norm": 0.05}}),
    "rejected": ({}, {"name": "test_invariants:RejectedSpatl"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_the_variates_is_kept(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    options, overrides = CASES[case]
    distance, size = gap(tmp_path, options, **overrides)
    assert size > 1e-5
    assert distance < 1e-12


def test_in_single_precision_only_rounding_separates_them(tmp_path: Path) -> None:
    training = {"dtype": "float32"}
    distance, size = gap(tmp_path, {}, training=training)
    assert size > 1e-5
    assert distance < 1e-6


def test_rejected_clients_were_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case above is not vacuous: some updates are rejected, and their states stay."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run = experiment("test_invariants:RejectedSpatl", CLIENTS, 3, sample_ratio=1.0)
    backend, outcomes = play(run, data(), tmp_path)
    rejected = [r.client for r in outcomes[2].clients if r.status == "rejected"]
    assert rejected == [1, 4]
    earlier, later = final_states(backend, outcomes[:2]), final_states(backend, outcomes)
    for client, (before, after) in enumerate(zip(earlier, later, strict=True)):
        same = np.array_equal(before["control"], after["control"])
        assert same == (client in rejected)


def test_unsent_positions_keep_their_bits(tmp_path: Path) -> None:
    """What no client of a round sent stays as it is: x, c, and each sender's c_i."""
    run = experiment("spatl", CLIENTS, 1, options={"keep": 0.25, "criterion": "update"})
    backend, outcomes = play(run, data(), tmp_path)
    sent = np.zeros(4, dtype=bool)
    for report in outcomes[0].clients:
        state = backend.worker.store.read(report.client, 0)
        own = state["selected"] != 0
        assert own.sum() == 1
        assert np.array_equal(state["control"] != 0, own)
        sent |= own
    arrays = backend.arrays()
    assert np.array_equal(arrays["model"] != 0, sent)
    assert np.array_equal(arrays["control"] != 0, sent)
