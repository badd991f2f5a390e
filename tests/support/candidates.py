"""Candidates of a selection on real networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from spatl_ray.models.flat import FlatModel
from spatl_ray.selection.candidate import Candidate


def candidate(model: FlatModel, seed: int = 0, **fields: Any) -> Candidate:
    """A client's encoder whose weights and update have different salient channels."""
    space = model.layout.shared
    update = np.random.default_rng(seed).normal(size=space.size).astype(np.float32)
    return Candidate(
        **{
            "client": 7,
            "round": 0,
            "space": space,
            "model": model.read(),
            "update": update,
            "state": {},
            "validate": lambda vector, limit=None: None,
            "generator": np.random.default_rng(0),
            **fields,
        }
    )
