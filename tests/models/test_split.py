"""A network is built from a name, cut by a rule, and refused with a reason."""

from __future__ import annotations

import pytest
import torch
from flat_models import split_model

from spatl_ray.errors import ConfigError, ModelError, SpatlError
from spatl_ray.models.split import ENCODER, MODELS, PREDICTOR


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (1, 16, 16)) for name in MODELS if name != "char_lstm"),
        ("char_lstm", (5,)),
        ("Lazy", (1, 16, 16)),
        ("Functional", (1, 16, 16)),
        ("torchvision.shufflenet_v2_x0_5", (1, 16, 16)),
    ],
)
def test_a_seed_gives_the_same_bits_whatever_was_drawn_before(
    name: str, shape: tuple[int, ...]
) -> None:
    ids = 10 if name == "char_lstm" else None
    first = split_model(name, shape, seed=3, token_ids=ids).module.state_dict()
    torch.rand(5)
    again = split_model(name, shape, seed=3, token_ids=ids).module.state_dict()
    other = split_model(name, shape, seed=4, token_ids=ids).module.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    split_model("Lazy")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_all_floating_tensors(dtype: torch.dtype) -> None:
    tensors = split_model("resnet20", dtype=dtype).module.state_dict().values()
    assert {t.dtype for t in tensors} == {dtype, torch.int64}


def test_the_predictor_is_what_the_module_declares() -> None:
    split = split_model("Functional")
    assert split.parts == {"head": PREDICTOR}
    assert split.part_of("head.weight") == PREDICTOR
    assert split.part_of("kernel") == ENCODER


def test_the_config_overrules_the_module() -> None:
    split = split_model("Functional", predictor=("last", "head"))
    assert [split.part_of(n) for n in ("last.bias", "head", "first")] == [
        PREDICTOR,
        PREDICTOR,
        ENCODER,
    ]


def test_a_name_is_no_prefix_of_another_name() -> None:
    split = split_model("lenet", predictor=("predictor.1",))
    assert split.part_of("predictor.1.weight") == PREDICTOR
    assert split.part_of("predictor.10.weight") == ENCODER


def test_a_declaration_may_be_one_name() -> None:
    assert split_model("DeclaresOneName").parts == {"head": PREDICTOR}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("lenett", ConfigError, "got 'lenett'; did you mean 'lenet'"),
        ("gpt", ConfigError, r"must be one of mlp, lenet, .*, torchvision.NAME or package"),
        ("own_models:Missing", ConfigError, "model.name must name .* got 'own_models:Missing'"),
        ("nowhere.at_all:Net", ConfigError, "model.name must name .* got 'nowhere.at_all:Net'"),
        ("own_models:math", ConfigError, "model.name must name a class or a function"),
        (
            "no_module",
            ConfigError,
            "must give a torch.nn.Module, got 'own_models:no_module': a str",
        ),
        ("breaks", ModelError, r"own_models:breaks cannot be built .*temperature 1.0 is too hot"),
        ("NoPredictor", ModelError, "has no predictor: name .*; it has first, norm, last"),
        ("EmptyPredictor", ModelError, "must have parameters, got none in predictor"),
        ("Frozen", ModelError, "must require a gradient, got encoder.bias without"),
        ("one_class_short", ModelError, r"logits of shape \(batch, 10\), got \(2, 9\)"),
        ("two_outputs", ModelError, r"logits of shape \(batch, 10\), got tuple"),
    ],
)
def test_a_network_that_cannot_be_had(name: str, error: type[SpatlError], message: str) -> None:
    with pytest.raises(error, match=message):
        split_model(name)


def test_samples_that_the_network_cannot_take() -> None:
    with pytest.raises(ModelError, match=r"cannot take samples of shape \(1, 2, 2\)"):
        split_model("Functional", (1, 2, 2))


def test_a_factory_that_takes_the_vocabulary_is_given_that_of_the_data() -> None:
    embedding = split_model("Words", (7,), token_ids=20).module.encoder
    assert embedding.num_embeddings == 20
    embedding = split_model("Words", (7,), token_ids=20, vocabulary=25).module.encoder
    assert embedding.num_embeddings == 25
    with pytest.raises(ModelError, match="vocabulary must be at least the data's 20, got 19"):
        split_model("Words", (7,), token_ids=20, vocabulary=19)


def test_a_network_of_real_features_cannot_take_token_ids() -> None:
    with pytest.raises(ModelError, match=r"cannot take samples of shape \(7,\) \(token ids\)"):
        split_model("mlp", (7,), token_ids=20)


def test_options_reach_an_own_factory_or_are_refused() -> None:
    with pytest.raises(ModelError, match="temperature 7 is too hot"):
        split_model("breaks", temperature=7)
    with pytest.raises(ConfigError, match=r"model.options do not fit own_models:breaks.*'heat'"):
        split_model("breaks", heat=7)


@pytest.mark.parametrize("wrong", ["haed", "", "kernel"])
def test_a_predictor_that_is_no_submodule(wrong: str) -> None:
    with pytest.raises(ModelError, match=f"must name submodules of .* got '{wrong}'; it has first"):
        split_model("Functional", predictor=(wrong,))
