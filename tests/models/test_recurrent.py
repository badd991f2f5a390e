"""The recurrent network over token ids: its parts, its channel groups, its training on flat vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flat_models import CHARACTERS, LENGTH, flatten, order, split_model, text, text_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from spatl_ray.config import Training
from spatl_ray.errors import ModelError
from spatl_ray.models.flat import FlatModel
from spatl_ray.models.split import ENCODER, PREDICTOR
from spatl_ray.parameters import ModelVector, Space
from spatl_ray.training.local import LocalResult, LocalTask, Phase, Trainer

GATES = 4


def covered(space: Space) -> dict[str, set[str]]:
    """The names of each group's segments."""
    return {
        group.name: {s.name for s in space.segments if s.group == index}
        for index, group in enumerate(space.groups)
    }


def train(model: FlatModel, task: LocalTask, **training: Any) -> LocalResult:
    x, y = text(200)
    options = Training(**{"batch_size": 20, **training})
    return Trainer(model, options).run(task, x, y, 0.5, order())


def lstm(inputs: int, hidden: int) -> int:
    """Parameters of an LSTM layer: each gate has two matrices and two biases."""
    return GATES * hidden * (inputs + hidden + 2)


def test_char_lstm_has_the_size_of_its_layers() -> None:
    split = split_model("char_lstm", (80,), 80, token_ids=80)
    sizes = {name: p.numel() for name, p in split.module.named_parameters()}
    predictor = {name for name in sizes if split.part_of(name) == PREDICTOR}
    assert predictor == {"predictor.weight", "predictor.bias"}
    assert sum(sizes[name] for name in predictor) == 257 * 80
    assert sum(sizes.values()) == 819_920
    assert sum(sizes.values()) == 80 * 8 + lstm(8, 256) + lstm(256, 256) + 257 * 80


@given(*(st.integers(1, 6) for _ in range(4)))
@settings(deadline=None, max_examples=15)
def test_options_set_the_sizes(embedding: int, hidden: int, layers: int, more: int) -> None:
    split = split_model(
        "char_lstm", (3,), 7, token_ids=5, embedding=embedding, hidden=hidden, layers=layers,
        vocabulary=5 + more,
    )  # fmt: skip
    expected = (5 + more) * embedding + lstm(embedding, hidden)
    expected += (layers - 1) * lstm(hidden, hidden) + (hidden + 1) * 7
    assert sum(p.numel() for p in split.module.parameters()) == expected


def test_the_vocabulary_is_the_datas_else_the_classes() -> None:
    of_data = split_model("char_lstm", (3,), 7, token_ids=5).module
    assert of_data.encoder.embedding.num_embeddings == 5
    alone = type(of_data)((3,), 7)
    assert alone.encoder.embedding.num_embeddings == 7


@pytest.mark.parametrize(
    ("shape", "ids", "options", "message"),
    [
        ((5,), None, {}, "needs token ids .*a vocabulary.*, got features of torch.float32"),
        ((5, 5), 10, {}, r"needs token ids as \(length,\), got \(5, 5\)"),
        ((5,), 10, {"vocabulary": 9}, "vocabulary must be at least the data's 10, got 9"),
        ((5,), 10, {"vocabulary": "9"}, "vocabulary must be an integer of at least 1, got '9'"),
        ((5,), 10, {"hidden": 0}, "model.options.hidden must be an integer .* got 0"),
        ((5,), 10, {"layers": 1.0}, "model.options.layers must be an integer .* got 1.0"),
        ((5,), 10, {"embedding": -8}, "model.options.embedding must be an integer .* got -8"),
    ],
)
def test_what_char_lstm_refuses(
    shape: tuple[int, ...], ids: int | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        split_model("char_lstm", shape, token_ids=ids, **options)


def test_each_layer_is_a_group_of_gate_rows_and_the_embedding_has_none() -> None:
    model = text_model(hidden=6, embedding=3)
    space = model.layout.shared
    tensors = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert covered(space) == {
        f"encoder.lstm.l{i}": {f"encoder.lstm.{t}_l{i}" for t in tensors} for i in (0, 1)
    }
    assert [(g.channels, g.offset) for g in space.groups] == [(24, 0), (24, 24)]
    assert all(s.shape[0] == 24 for s in space.segments if s.group >= 0)
    assert space.expand(np.zeros(48, dtype=np.bool_)).sum() == CHARACTERS * 3


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize(
    ("options", "gates", "tensors"),
    [
        ({}, 4, ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]),
        ({"kind": "GRU"}, 3, ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]),
        ({"kind": "RNN", "bias": False}, 1, ["weight_ih", "weight_hh"]),
        ({"proj_size": 3}, 4, ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]),
    ],
)
def test_each_direction_is_a_group_without_projections(
    options: dict[str, Any], gates: int, tensors: list[str]
) -> None:
    space = flatten(split_model("Rows", **options)).layout.shared
    assert covered(space) == {
        f"encoder.{way}": {f"encoder.{t}_{way}" for t in tensors} for way in ("l0", "l0_reverse")
    }
    assert {g.channels for g in space.groups} == {gates * 5}


def test_a_layer_with_a_computed_weight_has_no_group() -> None:
    space = flatten(split_model("ComputedGates")).layout.shared
    names = ["encoder.l0_reverse", "encoder.l1", "encoder.l1_reverse"]
    assert [g.name for g in space.groups] == names


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_a_unit_without_its_candidate_row_gives_exactly_0(seed: int) -> None:
    """g = tanh(0) = 0 and c_0 = 0 give c_t = sigmoid(f) c_(t-1) + sigmoid(i) g = 0, h_t = 0."""
    hidden = 6
    model = text_model(hidden=hidden, layers=1)
    draw = np.random.default_rng(seed)
    vector = model.read()
    kept = draw.random(hidden) < 0.5
    bits = np.ones(GATES * hidden, dtype=np.bool_)
    bits[2 * hidden : 3 * hidden] = kept
    masked = vector.parameters * model.layout.parameters.expand(bits)
    model.load(ModelVector(masked, vector.buffers))
    model.evaluate()
    with torch.no_grad():
        features = model.module.encoder(text(20)[0]).numpy()
    assert not features[:, ~kept].any()
    assert features[:, kept].all()


def test_tensors_are_views_of_the_flat_vectors_that_the_layer_reads() -> None:
    model = text_model(hidden=6)
    flat = model.module.encoder.lstm._flat_weights
    spans = {s.name.rpartition(".")[2]: s.span for s in model.layout.parameters.segments}
    for name, weight in zip(model.module.encoder.lstm._flat_weights_names, flat, strict=True):
        assert weight.data_ptr() == model.parameters[spans[name]].data_ptr()
        assert weight.grad.data_ptr() == model.gradient[spans[name]].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_model_gives_the_logits_and_gradients_of_a_plain_one(dtype: torch.dtype) -> None:
    shape = (LENGTH,)
    other = split_model("char_lstm", shape, CHARACTERS, dtype, seed=9, token_ids=CHARACTERS)
    plain = other.module.train()
    x, y = text(8)
    logits = plain(x)
    functional.cross_entropy(logits, y).backward()
    model = text_model(dtype)
    tensors = {name: p.detach().numpy() for name, p in plain.named_parameters()}
    values = [tensors[s.name].ravel() for s in model.layout.parameters.segments]
    model.load(ModelVector(np.concatenate(values), model.read().buffers))
    model.train(None)
    own = model.module(x)
    functional.cross_entropy(own, y).backward()
    assert torch.equal(own, logits)
    views = model.layout.parameters.views(model.gradient.numpy())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
        assert np.array_equal(views[name], parameter.grad.numpy())


def test_training_learns_a_text_and_gives_the_same_bits_again() -> None:
    model = text_model(hidden=16)
    start = model.read()
    first = train(model, LocalTask(start), epochs=15)
    again = train(model, LocalTask(start), epochs=15)
    assert first.end.parameters.tobytes() == again.end.parameters.tobytes()
    assert first.loss == again.loss
    moved = model.layout.parameters.views(first.end.parameters != start.parameters)
    assert all(view.any() for view in moved.values())
    last = train(model, LocalTask(first.end), epochs=1).loss
    assert last < 0.25 * train(model, LocalTask(start), epochs=1).loss


@pytest.mark.parametrize("part", [ENCODER, PREDICTOR])
def test_a_phase_trains_only_its_part(part: str) -> None:
    model = text_model(hidden=6)
    start = model.read()
    task = LocalTask(start, phases=(Phase(frozenset({part}), epochs=1),))
    moved = train(model, task).end.parameters != start.parameters
    views = model.layout.parameters.views(moved)
    parts = {s.name: s.part for s in model.layout.parameters.segments}
    assert {parts[name] for name, view in views.items() if view.any()} == {part}
