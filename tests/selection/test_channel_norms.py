"""A channel's norm is over all weight matrices of its group, and over one exactly as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatl_ray.parameters import ChannelGroup, make_space
from spatl_ray.selection.salience import channel_norms

ROWS = 8
GROUPS = (ChannelGroup("lstm.l0", ROWS, 0), ChannelGroup("conv", 3, ROWS))
SPACE = make_space(
    [
        ("lstm.weight_ih_l0", "encoder", (ROWS, 5), 0),
        ("lstm.weight_hh_l0", "encoder", (ROWS, 2), 0),
        ("lstm.bias_ih_l0", "encoder", (ROWS,), 0),
        ("embedding.weight", "encoder", (4, 5), -1),
        ("conv.weight", "encoder", (3, 2, 3, 3), 1),
        ("conv.bias", "encoder", (3,), 1),
    ],
    GROUPS,
)


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("order", [1, 2])
def test_a_recurrent_row_is_the_input_weights_beside_the_hidden_ones(order: int, seed: int) -> None:
    vector = np.random.default_rng(seed).normal(size=SPACE.size).astype(np.float32)
    views = SPACE.views(vector)
    rows = np.concatenate([views["lstm.weight_ih_l0"], views["lstm.weight_hh_l0"]], axis=1)
    expected = np.linalg.norm(rows.astype(np.float64), order, axis=1)
    scores = channel_norms(SPACE, vector, order)
    assert scores[:ROWS] == pytest.approx(expected, rel=1e-14)
    alone = views["conv.weight"].reshape(3, -1).astype(np.float64)
    assert np.array_equal(scores[ROWS:], np.linalg.norm(alone, order, axis=1))
