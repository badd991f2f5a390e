"""A module cut into parts by a declared rule: which submodules form the predictor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spatl_ray import faults, plugins, seeding
from spatl_ray.config import Model
from spatl_ray.data.datasets import SampleSpec
from spatl_ray.errors import ConfigError, ModelError, SpatlError
from spatl_ray.models import vision
from spatl_ray.models.cnn import CNN
from spatl_ray.models.lenet import LeNet
from spatl_ray.models.mlp import MLP
from spatl_ray.models.recurrent import CharLSTM
from spatl_ray.models.resnet import resnet20, resnet32, resnet56
from spatl_ray.models.vgg import vgg11, vgg13, vgg16

ENCODER = "encoder"
PREDICTOR = "predictor"

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "cnn": CNN,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "char_lstm": CharLSTM,
}


@dataclass(frozen=True, eq=False)
class SplitModel:
    """A module and its parts.

    Attributes:
        module: the whole network.
        parts: submodule name -> part; what no entry covers is the encoder.
    """

    module: nn.Module
    parts: Mapping[str, str]

    def part_of(self, name: str) -> str:
        """The part that the submodule, parameter or buffer `name` belongs to."""
        for prefix, part in self.parts.items():
            if name == prefix or name.startswith(prefix + "."):
                return part
        return ENCODER


def model_factory(name: str) -> Callable[..., nn.Module]:
    """What builds the module: (shape, classes, **options) -> nn.Module.

    A factory that takes `vocabulary` is given the data's, if the data are token ids.
    """
    if name in MODELS:
        return MODELS[name]
    if plugins.is_dotted(name):
        return plugins.load(name, "model.name")
    if name.startswith(vision.PREFIX):
        return vision.torchvision_model(name)
    near = faults.nearest(name, MODELS)
    hint = f"; did you mean {near!r}?" if near else ""
    known = ", ".join(MODELS)
    raise ConfigError(
        f"model.name must be one of {known}, {vision.PREFIX}NAME or package.module:Name, got {name!r}{hint}"
    )


def _predictor_of(module: nn.Module, config: Model) -> tuple[str, ...]:
    """The predictor's submodules: the config's, else the module's `predictor_modules`, else `predictor`."""
    known = dict(module.named_modules())
    names = config.predictor or getattr(module, "predictor_modules", None)
    names = names or ((PREDICTOR,) if PREDICTOR in known else ())
    names = (names,) if isinstance(names, str) else names
    children = ", ".join(name for name, _ in module.named_children()) or "none"
    if not names:
        raise ModelError(
            f"model {config.name} has no predictor: name its submodules in model.predictor, or in "
            f"the attribute `predictor_modules` of the module, or call one `predictor`; it has {children}"
        )
    for name in names:
        if name not in known or not name:
            raise ModelError(
                f"model.predictor must name submodules of {config.name}, got {name!r}; it has {children}"
            )
    return tuple(names)


def build_model(config: Model, spec: SampleSpec, seed: int, dtype: torch.dtype) -> SplitModel:
    """Build and initialise the network; the same bits for the same seed.

    Args:
        config: which network and where it is cut.
        spec: of the data: shape of a sample, number of outputs.
        seed: the experiment's seed.
        dtype: of its parameters.

    Raises:
        ConfigError: unknown name or options.
        ModelError: no predictor, a frozen parameter, or a module that does not fit the data's shape.
    """
    factory = model_factory(config.name)
    with seeding.torch_seeded(seed, "model"):
        module = _made(factory, config, spec)
        names = _predictor_of(module, config)
        split = SplitModel(module.to(dtype), dict.fromkeys(names, PREDICTOR))
        # Still seeded: lazy layers draw their weights at the first forward pass.
        _check_output(split, spec, dtype)
    _check_parameters(split, config)
    return split


def _made(factory: Callable[..., nn.Module], config: Model, spec: SampleSpec) -> nn.Module:
    """The module that the factory gives for these options."""
    try:
        module = factory(spec.shape, spec.classes, **_with_vocabulary(factory, config, spec))
    except SpatlError:
        raise
    except TypeError as error:
        raise ConfigError(f"model.options do not fit {config.name}: {error}") from error
    except Exception as error:
        raise ModelError(
            f"{config.name} cannot be built for samples of shape {spec.shape}, {spec.classes} classes and "
            f"model.options {config.options}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"model.name must give a torch.nn.Module, got {config.name!r}: "
            f"a {type(module).__name__}"
        )
    return module


def _with_vocabulary(
    factory: Callable[..., nn.Module], config: Model, spec: SampleSpec
) -> dict[str, Any]:
    """The options, and the data's vocabulary for a factory that takes `vocabulary`."""
    options = dict(config.options)
    if spec.vocabulary is None or "vocabulary" not in inspect.signature(factory).parameters:
        return options
    given = options.setdefault("vocabulary", spec.vocabulary)
    if isinstance(given, int) and given < spec.vocabulary:
        raise ModelError(
            f"model.options.vocabulary must be at least the data's {spec.vocabulary}, got {given}"
        )
    return options


def _check_parameters(split: SplitModel, config: Model) -> None:
    """Refuse a predictor without parameters, and parameters that the module itself has frozen."""
    parameters = dict(split.module.named_parameters())
    if PREDICTOR not in {split.part_of(name) for name in parameters}:
        names = ", ".join(split.parts)
        raise ModelError(
            f"the predictor of {config.name} must have parameters, got none in {names}"
        )
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen:
        raise ModelError(
            f"every parameter of {config.name} must require a gradient, got {', '.join(frozen)} "
            "without: phases freeze parts, and what never trains is a buffer"
        )


def blank(spec: SampleSpec, samples: int, dtype: torch.dtype) -> torch.Tensor:
    """A batch of zeros as the model takes it: of `dtype`, or of token ids."""
    kind = dtype if spec.vocabulary is None else torch.int64
    return torch.zeros(samples, *spec.shape, dtype=kind)


def _check_output(split: SplitModel, spec: SampleSpec, dtype: torch.dtype) -> None:
    """Refuse a module that cannot take the data or does not give one logit a class."""
    split.module.eval()
    try:
        with torch.no_grad():
            output = split.module(blank(spec, 2, dtype))
    except SpatlError:
        raise
    except Exception as error:
        kind = "" if spec.vocabulary is None else " (token ids)"
        raise ModelError(
            f"the model cannot take samples of shape {spec.shape}{kind}: {error}"
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape != (2, spec.classes):
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"the model must give logits of shape (batch, {spec.classes}), got {got}")
