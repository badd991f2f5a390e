"""`spatl pretrain-agent`: from options to an agent's file with its provenance and learning curve."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from spatl_ray import faults
from spatl_ray.config import Pretraining
from spatl_ray.errors import ConfigError
from spatl_ray.overrides import overridden
from spatl_ray.places import check_place
from spatl_ray.selection.agent import save_agent
from spatl_ray.selection.checkpoint import checkpoint_file
from spatl_ray.selection.learning_curve import draw_curve, save_curve
from spatl_ray.selection.pretrain import Pretrainer, Told

SUFFIX, CURVE, PICTURE = ".safetensors", ".parquet", ".png"
CHECKPOINTS = ".checkpoints"
LAST = 30
"""Updates whose mean accuracies the provenance tells."""


def pretraining_from(overrides: Sequence[str]) -> Pretraining:
    """The options that overrides describe.

    Args:
        overrides: `key=value` or `section.key=value`, the value in YAML.

    Raises:
        ConfigError: one line a fault.
    """
    raw = overridden(Pretraining().model_dump(mode="json"), overrides)
    try:
        return Pretraining.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(faults.texts(error, raw, Pretraining)) from error


def pretrain(options: Pretraining, out: Path, told: Told) -> Mapping[str, object]:
    """Pre-train an agent and write it, its learning curve (Parquet) and a picture of that.

    What was done by an earlier call with the same options and the same `out` is gone on from; its
    checkpoints lie beside it, in `out` with the ending .checkpoints.

    Args:
        options: how.
        out: of the agent, ending in .safetensors.
        told: of progress.

    Returns:
        The provenance that the file carries.

    Raises:
        ConfigError: another ending, or options that do not fit the data.
        StateError: checkpoints of other options, or damaged ones.
    """
    _check_out(out)
    torch.set_num_threads(1)
    trainer = Pretrainer(options, out.with_suffix(CHECKPOINTS), told)
    agent = trainer.run()
    made = _provenance(trainer)
    save_agent(agent, out, made)
    save_curve(trainer.curve, out.with_suffix(CURVE))
    draw_curve(trainer.curve, out.with_suffix(PICTURE))
    return made


def _check_out(out: Path) -> None:
    """Refuse a place where agent, curve, picture or checkpoints could not be written."""
    if out.suffix != SUFFIX:
        raise ConfigError(f"--out must end in {SUFFIX}, got {str(out)!r}")
    for suffix in (SUFFIX, CURVE, PICTURE):
        if out.with_suffix(suffix).is_dir():
            raise ConfigError(
                f"--out must be a file's name, got {str(out)!r}: {out.with_suffix(suffix)} is a folder"
            )
    check_place(checkpoint_file(out.with_suffix(CHECKPOINTS), "agent"), "--out")


def _provenance(trainer: Pretrainer) -> dict[str, object]:
    """What made the agent, and how far it came: means over the last updates."""
    last = trainer.curve[-LAST:]
    names = [name for name in last[0] if name not in ("update", "network", "budget")]
    packages = ("spatl_ray", "torch", "numpy")
    return {
        "command": shlex.join(["spatl", "pretrain-agent", *_overrides(trainer.options)]),
        "options": json.loads(trainer.options.model_dump_json()),
        "data": trainer.dataset.name,
        "data_fingerprint": trainer.dataset.fingerprint,
        "network_accuracies": trainer.dense_accuracies,
        **{name: float(np.mean([row[name] for row in last])) for name in names},
        "mean_budget": float(np.mean([row["budget"] for row in last])),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
    }


def _overrides(options: Pretraining) -> list[str]:
    """The overrides that give these options."""
    own, default = (each.model_dump(mode="json") for each in (options, Pretraining()))
    return [f"{name}={json.dumps(own[name])}" for name in own if own[name] != default[name]]
