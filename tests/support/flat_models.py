"""Networks by name, flat models of them, and samples for them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import own_models
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from spatl_ray.config import Model, Training
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.models.coupling import channel_groups
from spatl_ray.models.flat import FlatModel, make_layout
from spatl_ray.models.split import PREDICTOR, SplitModel, build_model
from spatl_ray.training.local import LocalResult, LocalTask, Trainer

LR = 0.05


def split_model(
    name: str,
    shape: tuple[int, ...] = (1, 16, 16),
    classes: int = 10,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    predictor: tuple[str, ...] | None = None,
    token_ids: int | None = None,
    **options: Any,
) -> SplitModel:
    """A network by its name; one of own_models if there is one. `token_ids` is the data's vocabulary."""
    full = f"own_models:{name}" if name in vars(own_models) else name
    config = Model(name=full, predictor=predictor, options=options)
    return build_model(config, SampleSpec(shape, classes, token_ids), seed, dtype)


def flatten(
    split: SplitModel,
    shape: tuple[int, ...] = (1, 16, 16),
    shared: bool = False,
    buffers: Literal["average", "local"] = "average",
    token_ids: int | None = None,
) -> FlatModel:
    """The network over flat vectors; the predictor is local, or `shared` like the encoder."""
    dtype = next(split.module.parameters()).dtype
    groups, member = channel_groups(split, SampleSpec(shape, 10, token_ids), dtype)
    layout = make_layout(split, groups, member, lambda part: shared or part != PREDICTOR, buffers)
    return FlatModel(split, layout, torch.device("cpu"))


def digits(
    samples: int, dtype: torch.dtype = torch.float32, side: int = 16
) -> tuple[Tensor, Tensor]:
    """Handwritten digits as images of `side` (a multiple of 8) pixels, and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images[:samples] / 16 - 0.3).reshape(-1, 1, 8, 8)
    large = np.kron(images, np.ones((1, 1, side // 8, side // 8)))
    return torch.from_numpy(large).to(dtype), torch.from_numpy(labels[:samples])


LENGTH, CHARACTERS = 6, 10
"""Of the text samples: token ids each, and different ones."""


def text_model(dtype: torch.dtype = torch.float32, **options: Any) -> FlatModel:
    """A small char_lstm over flat vectors."""
    split = split_model("char_lstm", (LENGTH,), CHARACTERS, dtype, token_ids=CHARACTERS, **options)
    return flatten(split, (LENGTH,), token_ids=CHARACTERS)


def text(samples: int) -> tuple[Tensor, Tensor]:
    """The decimals of 1/7, 1/13, 1/17, ... cut into samples, and the digit behind each."""
    digits_of = "".join(str(10**48 // n).zfill(48) for n in (7, 13, 17, 19, 23, 29))
    ids = torch.tensor([int(character) for character in digits_of])
    windows = ids.unfold(0, LENGTH + 1, 1)[:samples]
    return windows[:, :-1], windows[:, -1]


def order(seed: int = 0) -> np.random.Generator:
    """Draws the order of the samples."""
    return np.random.default_rng(seed)


def train(model: FlatModel, task: LocalTask, samples: int = 20, **training: Any) -> LocalResult:
    """Local training on digits, in the model's dtype."""
    x, y = digits(samples, model.parameters.dtype)
    options = Training(**{"batch_size": 8, **training})
    return Trainer(model, options).run(task, x, y, LR, order())
